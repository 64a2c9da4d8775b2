"""What ClueNet needs of a backbone, checked against Hugging Face's own code on the same folder. For third parties too:

    from cluenet.testing import conformance

    @pytest.mark.parametrize("check", conformance.CHECKS)
    def test_my_backbone(check):
        check("/models/my-checkpoint")

A check raises AssertionError that says what differs and by how much. A folder is loaded once for all checks, by the adapter and
by Hugging Face, in float32: twice its parameters times 4 bytes of memory. `device`: `cuda` takes the first GPU.

A family that `cluenet.model.families` gained needs a line in `backbone_pair.ORDINARY_INPUTS` as well.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from cluenet.config.tuning import LoraTuning
from cluenet.model import tuning
from cluenet.model.packing import Segment, pack
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.vlm import VisionLanguageModel
from cluenet.testing.backbone_pair import BackbonePair, Clip, rows_of

TOLERANCE = 1e-4
"""Largest difference in float32, as a share of the largest value."""
QUESTIONS = ("which one hits red ?", "why does the blue one move ?", "what ?")


@torch.no_grad()
def check_visual_embeddings_are_the_models_own(folder: str | Path, device: str = "cpu") -> None:
    """Tower and projector, one after the other, make what `get_video_features` (or `get_image_features`) makes."""
    both = BackbonePair.of(folder, device)
    for clip in both.clips:
        (embeds, deepstack), theirs = both.vlm.encode(clip.pixels, clip.grid_B3), both.features(clip)
        assert_close(embeds, rows_of(theirs.pooler_output), "visual embeddings")
        for level, ours in enumerate(deepstack):
            assert_close(ours, rows_of(theirs.deepstack_features[level]), f"DeepStack input {level}")


@torch.no_grad()
def check_tower_states_of_a_batch_are_those_of_its_clips(folder: str | Path, device: str = "cpu") -> None:
    """So that the tower's work can be kept per clip, and projected later, in whatever batch."""
    both = BackbonePair.of(folder, device)
    pixels, grid_B3 = (torch.cat([getattr(clip, name) for clip in both.clips]) for name in ("pixels", "grid_B3"))
    whole = both.vlm.tower(pixels, grid_B3)
    parts = whole.clips()
    assert len(parts) == len(both.clips), f"{len(both.clips)} clips went in, {len(parts)} came out"
    for clip, part in zip(both.clips, parts):
        assert_close(part.states, both.vlm.tower(clip.pixels, clip.grid_B3).states, "tower states of a clip")
    embeds, again = both.vlm.project(whole)[0], both.vlm.project(type(whole).joined(parts))[0]
    assert torch.equal(embeds, again), "embeddings differ after clips were separated and joined"


@torch.no_grad()
def check_nothing_pruned_equals_the_ordinary_forward_pass(folder: str | Path, device: str = "cpu") -> None:
    """Shared prompt first, question on top of its cache: the logits of one ordinary pass over the whole."""
    both = BackbonePair.of(folder, device)
    for clip in both.clips:
        text = both.text(QUESTIONS[0])
        ours = both.logits_after(both.watched([clip]), [text], clip.starts)[0]
        assert_close(ours, both.ordinary_logits(clip, text), "logits of the question")


@torch.no_grad()
def check_visual_states_do_not_depend_on_the_question(folder: str | Path, device: str = "cpu") -> None:
    """Whatever is asked, the ordinary pass has the visual states that the shared prompt alone has, at every layer."""
    both = BackbonePair.of(folder, device)
    clip, layers = both.clips[0], range(both.vlm.layers + 1)
    wanted = [both.ordinary_states(clip, both.text(question), layers) for question in QUESTIONS]
    for layer in layers:
        ours = both.watched([clip], layer=layer).visual_BND[0]
        for question, states in zip(QUESTIONS, wanted):
            assert_close(ours, states[layer], f"visual states at layer {layer} when asked {question!r}")


@torch.no_grad()
def check_prefix_reuse_equals_separate_runs(folder: str | Path, device: str = "cpu") -> None:
    """Questions that are asked one after the other, and all in one row, on one cache: each as if it were alone."""
    both = BackbonePair.of(folder, device)
    clip, texts = both.clips[0], [both.text(question) for question in QUESTIONS]
    prefix = both.watched([clip])
    wanted = [both.ordinary_logits(clip, text) for text in texts]
    for text, logits in zip(texts, wanted):
        assert_close(
            both.logits_after(prefix, [text], clip.starts)[0], logits, "logits on a cache that was used before"
        )
    packed = pack([[Segment(text) for text in texts]], offsets=clip.starts, pad=both.vlm.pad).to(device)
    states = both.vlm.text_pass(
        both.embedded(packed.ids_BL), packed.positions_BL, packed.allowed_BLL, prefix=prefix
    )  # fmt: skip
    for start, logits in zip(packed.starts[0], wanted):
        assert_close(both.vlm.head(states[0, start : start + len(logits)]), logits, "logits of questions in one row")


@torch.no_grad()
def check_ragged_batches_equal_single_runs(folder: str | Path, device: str = "cpu") -> None:
    """Clips and questions of other lengths in the batch change nothing."""
    both = BackbonePair.of(folder, device)
    texts = [both.text(question) for question in QUESTIONS[: len(both.clips)]]
    starts = [start for clip in both.clips for start in clip.starts]
    together = both.logits_after(both.watched(both.clips), texts, starts)
    for clip, text, logits in zip(both.clips, texts, together):
        alone = both.logits_after(both.watched([clip]), [text], clip.starts)[0]
        assert_close(logits[: len(text)], alone, "logits in a batch")


@torch.no_grad()
def check_pruned_prompt_with_clues_decodes_like_generate(folder: str | Path, device: str = "cpu") -> None:
    """Some visual tokens, clues as embeddings between them and the question: the tokens that `generate` writes."""
    both = BackbonePair.of(folder, device)
    for number, clip in enumerate(both.clips):
        kept_N = _half_without_the_first_block(clip, seed=number)
        clues = both.clue_embeddings(count=3, seed=number)
        pruned = prefix_batch(both.vlm, [clip.frames], [clip.grid], kept=[kept_N])
        text = torch.cat([clues, both.embedded([both.text(QUESTIONS[number])])], dim=1)
        ours = both.greedy(both.vlm.prefix(pruned.to(device), layer=None, whole=True), text, pruned.text_starts[0])
        theirs = both.generated(clip, pruned, text)
        assert ours == theirs, f"tokens {ours}, but generate writes {theirs}"


@torch.no_grad()
def check_adapters_start_as_the_backbone_and_merge_into_it(folder: str | Path, device: str = "cpu") -> None:
    """`train.tuning: lora` finds its layers; fresh adapters change nothing, and trained ones give the same merged as beside the
    weights. Loads the folder once more, because adapters stay in a model."""
    vlm, theirs = VisionLanguageModel.load(folder).to(device), BackbonePair.of(folder, device)
    ids = torch.tensor([theirs.text(QUESTIONS[0])], device=device)
    wanted = theirs.hf(input_ids=ids).logits
    tuning.tune(vlm, LoraTuning())
    vlm.eval()
    assert_close(vlm.hf(input_ids=ids).logits, wanted, "logits with fresh adapters")
    for factor in (p for name, p in vlm.hf.named_parameters() if ".lora_B." in name):
        torch.nn.init.normal_(factor, std=0.02)
    beside = vlm.hf(input_ids=ids).logits
    assert (beside - wanted).abs().max() > TOLERANCE, "adapters that were moved change nothing"
    for module in vlm.hf.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
    assert_close(vlm.hf(input_ids=ids).logits, beside, "logits with merged adapters")


CHECKS = (
    check_visual_embeddings_are_the_models_own,
    check_tower_states_of_a_batch_are_those_of_its_clips,
    check_nothing_pruned_equals_the_ordinary_forward_pass,
    check_visual_states_do_not_depend_on_the_question,
    check_prefix_reuse_equals_separate_runs,
    check_ragged_batches_equal_single_runs,
    check_pruned_prompt_with_clues_decodes_like_generate,
    check_adapters_start_as_the_backbone_and_merge_into_it,
)


def _half_without_the_first_block(clip: Clip, *, seed: int) -> Tensor:
    kept_N = torch.rand(clip.grid.tokens, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept_N[: clip.grid.per_block] = False
    return kept_N


def assert_close(ours: Tensor, theirs: Tensor, what: str) -> None:
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)}, Hugging Face has {tuple(theirs.shape)}"
    difference, largest = float((ours - theirs).abs().max()), max(1.0, float(theirs.abs().max()))
    assert difference <= TOLERANCE * largest, f"{what}: differ by {difference:.2g}, the largest value is {largest:.2g}"
