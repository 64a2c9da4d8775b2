"""What ClueNet needs of a backbone, checked against Hugging Face's own code on the same folder. For third parties too:

    from cluenet.testing import conformance

    @pytest.mark.parametrize("check", conformance.CHECKS)
    def test_my_backbone(check):
        check("/models/my-checkpoint")

A check raises AssertionError that says what differs and by how much. A folder is loaded once for all checks, by the adapter and
by Hugging Face, in float32: twice its parameters times 4 bytes of memory. `device`: `cuda` takes the first GPU.

A family that `cluenet.model.families` gained needs a line in `ORDINARY_INPUTS` as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from cluenet.model.hooks import inputs_of
from cluenet.model.packing import Segment, pack
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.records import Frames

TOLERANCE = 1e-4
"""Largest difference in float32, as a share of the largest value."""
QUESTIONS = ("which one hits red ?", "why does the blue one move ?", "what ?")
NEW_TOKENS = 8

ORDINARY_INPUTS: dict[str, Callable[[Tensor, Tensor], dict[str, Tensor]]] = {
    "qwen2_5_vl": lambda pixels, grid_B3: {"pixel_values_videos": pixels, "video_grid_thw": grid_B3},
    "qwen3_vl": lambda pixels, grid_B3: {"pixel_values_videos": pixels, "video_grid_thw": grid_B3},
    "llava_onevision": lambda pixels, grid_B3: {"pixel_values_videos": pixels[None]},
    "internvl": lambda pixels, grid_B3: {"pixel_values": pixels},
    "smolvlm": lambda pixels, grid_B3: {"pixel_values": pixels[None]},
}
"""Pixels of one clip as the Hugging Face model takes them, by `model_type`."""


# ---------------------------------------------------------------------------------------------------- the checks


@torch.no_grad()
def check_visual_embeddings_are_the_models_own(folder: str | Path, device: str = "cpu") -> None:
    """Tower and projector, one after the other, make what `get_video_features` (or `get_image_features`) makes."""
    both = _Both.of(folder, device)
    for clip in both.clips:
        (embeds, deepstack), theirs = both.vlm.encode(clip.pixels, clip.grid_B3), both.features(clip)
        _assert_close(embeds, _rows(theirs.pooler_output), "visual embeddings")
        for level, ours in enumerate(deepstack):
            _assert_close(ours, _rows(theirs.deepstack_features[level]), f"DeepStack input {level}")


@torch.no_grad()
def check_tower_states_of_a_batch_are_those_of_its_clips(folder: str | Path, device: str = "cpu") -> None:
    """So that the tower's work can be kept per clip, and projected later, in whatever batch."""
    both = _Both.of(folder, device)
    pixels, grid_B3 = (torch.cat([getattr(clip, name) for clip in both.clips]) for name in ("pixels", "grid_B3"))
    whole = both.vlm.tower(pixels, grid_B3)
    parts = whole.clips()
    assert len(parts) == len(both.clips), f"{len(both.clips)} clips went in, {len(parts)} came out"
    for clip, part in zip(both.clips, parts):
        _assert_close(part.states, both.vlm.tower(clip.pixels, clip.grid_B3).states, "tower states of a clip")
    embeds, again = both.vlm.project(whole)[0], both.vlm.project(type(whole).joined(parts))[0]
    assert torch.equal(embeds, again), "embeddings differ after clips were separated and joined"


@torch.no_grad()
def check_nothing_pruned_equals_the_ordinary_forward_pass(folder: str | Path, device: str = "cpu") -> None:
    """Shared prompt first, question on top of its cache: the logits of one ordinary pass over the whole."""
    both = _Both.of(folder, device)
    for clip in both.clips:
        text = both.text(QUESTIONS[0])
        ours = both.logits_after(both.watched([clip]), [text], clip.starts)[0]
        _assert_close(ours, both.ordinary_logits(clip, text), "logits of the question")


@torch.no_grad()
def check_visual_states_do_not_depend_on_the_question(folder: str | Path, device: str = "cpu") -> None:
    """Whatever is asked, the ordinary pass has the visual states that the shared prompt alone has, at every layer."""
    both = _Both.of(folder, device)
    clip, layers = both.clips[0], range(both.vlm.layers + 1)
    wanted = [both.ordinary_states(clip, both.text(question), layers) for question in QUESTIONS]
    for layer in layers:
        ours = both.watched([clip], layer=layer).visual_BND[0]
        for question, states in zip(QUESTIONS, wanted):
            _assert_close(ours, states[layer], f"visual states at layer {layer} when asked {question!r}")


@torch.no_grad()
def check_prefix_reuse_equals_separate_runs(folder: str | Path, device: str = "cpu") -> None:
    """Questions that are asked one after the other, and all in one row, on one cache: each as if it were alone."""
    both = _Both.of(folder, device)
    clip, texts = both.clips[0], [both.text(question) for question in QUESTIONS]
    prefix = both.watched([clip])
    wanted = [both.ordinary_logits(clip, text) for text in texts]
    for text, logits in zip(texts, wanted):
        _assert_close(
            both.logits_after(prefix, [text], clip.starts)[0], logits, "logits on a cache that was used before"
        )
    packed = pack([[Segment(text) for text in texts]], offsets=clip.starts, pad=both.vlm.pad).to(device)
    states = both.vlm.text_pass(
        both.embedded(packed.ids_BL), packed.positions_BL, packed.allowed_BLL, prefix=prefix
    )  # fmt: skip
    for start, logits in zip(packed.starts[0], wanted):
        _assert_close(both.vlm.head(states[0, start : start + len(logits)]), logits, "logits of questions in one row")


@torch.no_grad()
def check_ragged_batches_equal_single_runs(folder: str | Path, device: str = "cpu") -> None:
    """Clips and questions of other lengths in the batch change nothing."""
    both = _Both.of(folder, device)
    texts = [both.text(question) for question in QUESTIONS[: len(both.clips)]]
    starts = [start for clip in both.clips for start in clip.starts]
    together = both.logits_after(both.watched(both.clips), texts, starts)
    for clip, text, logits in zip(both.clips, texts, together):
        alone = both.logits_after(both.watched([clip]), [text], clip.starts)[0]
        _assert_close(logits[: len(text)], alone, "logits in a batch")


@torch.no_grad()
def check_pruned_prompt_with_clues_decodes_like_generate(folder: str | Path, device: str = "cpu") -> None:
    """Some visual tokens, clues as embeddings between them and the question: the tokens that `generate` writes."""
    both = _Both.of(folder, device)
    for number, clip in enumerate(both.clips):
        kept_N = _half_without_the_first_block(clip, seed=number)
        clues = both.clue_embeddings(count=3, seed=number)
        pruned = prefix_batch(both.vlm, [clip.frames], [clip.grid], kept=[kept_N])
        text = torch.cat([clues, both.embedded([both.text(QUESTIONS[number])])], dim=1)
        ours = both.greedy(both.vlm.prefix(pruned.to(device), layer=None, whole=True), text, pruned.text_starts[0])
        theirs = both.generated(clip, pruned, kept_N, text)
        assert ours == theirs, f"tokens {ours}, but generate writes {theirs}"


CHECKS = (
    check_visual_embeddings_are_the_models_own,
    check_tower_states_of_a_batch_are_those_of_its_clips,
    check_nothing_pruned_equals_the_ordinary_forward_pass,
    check_visual_states_do_not_depend_on_the_question,
    check_prefix_reuse_equals_separate_runs,
    check_ragged_batches_equal_single_runs,
    check_pruned_prompt_with_clues_decodes_like_generate,
)


# ------------------------------------------------------------------------------------------- what they are run on


@dataclass(frozen=True)
class _Clip:
    frames: Frames
    grid: Any
    pixels: Tensor
    grid_B3: Tensor
    ids: list[int]  # of the shared prompt
    starts: list[int]  # of the text after it, in a list of one


@dataclass(frozen=True)
class _Both:
    """One folder as the adapter and as Hugging Face load it, and two clips of different sizes."""

    vlm: VisionLanguageModel
    hf: nn.Module
    clips: Sequence[_Clip]

    @classmethod
    def of(cls, folder: str | Path, device: str) -> _Both:
        return opened(str(folder), device)

    # ------------------------------------------------------------------------------------- the adapter
    def text(self, question: str) -> list[int]:
        return self.vlm.ids(question) + self.vlm.ids(self.vlm.chat_parts()[2])

    def embedded(self, ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        return F.embedding(torch.as_tensor(ids, device=self.vlm.embeddings_VD.device), self.vlm.embeddings_VD)

    def watched(self, clips: Sequence[_Clip], *, layer: int | None = None) -> Prefix:
        batch = prefix_batch(self.vlm, [clip.frames for clip in clips], [clip.grid for clip in clips])
        return self.vlm.prefix(batch.to(self.vlm.embeddings_VD.device), layer=layer, whole=True)

    def logits_after(self, prefix: Prefix, texts: Sequence[list[int]], starts: Sequence[int]) -> Tensor:
        """[B, L, V] of one text per clip."""
        packed = pack([[Segment(text)] for text in texts], offsets=starts, pad=self.vlm.pad)
        packed = packed.to(self.vlm.embeddings_VD.device)
        states = self.vlm.text_pass(
            self.embedded(packed.ids_BL), packed.positions_BL, packed.allowed_BLL, prefix=prefix
        )  # fmt: skip
        return self.vlm.head(states)

    def clue_embeddings(self, *, count: int, seed: int) -> Tensor:
        size = float(self.vlm.embeddings_VD.float().std())
        values = torch.randn(1, count, self.vlm.width, generator=torch.Generator().manual_seed(seed)) * size
        return values.to(self.vlm.embeddings_VD)

    def greedy(self, prefix: Prefix, embeds_1LD: Tensor, start: int) -> list[int]:
        cache, before, tokens = self.vlm.cache(prefix), prefix.valid_BP.shape[1], []
        while len(tokens) < NEW_TOKENS:
            length = embeds_1LD.shape[1]
            positions = torch.arange(start, start + length, device=embeds_1LD.device)[None]
            seen = torch.ones(1, length, before + length, dtype=torch.bool, device=embeds_1LD.device).tril(before)
            states = self.vlm.cached_pass(embeds_1LD, positions, seen, cache)
            tokens.append(int(self.vlm.head(states[0, -1]).argmax()))
            start, before, embeds_1LD = start + length, before + length, self.embedded([tokens[-1:]])
        return tokens

    # ------------------------------------------------------------------------------------ Hugging Face
    def features(self, clip: _Clip) -> Any:
        inputs = ORDINARY_INPUTS[self.hf.config.model_type](clip.pixels, clip.grid_B3)
        look = self.hf.model.get_video_features if "pixel_values_videos" in inputs else self.hf.model.get_image_features
        return look(**inputs)

    def ordinary_inputs(self, clip: _Clip, text: list[int]) -> dict[str, Tensor]:
        """Positions are the model's own affair, except where it counts blocks: Hugging Face knows no such prompts."""
        ids = torch.tensor([clip.ids + text], device=clip.pixels.device)
        inputs = ORDINARY_INPUTS[self.hf.config.model_type](clip.pixels, clip.grid_B3)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.vlm.family.multimodal_rope:
            inputs["mm_token_type_ids"] = (ids == self.vlm.placeholder).int() * 2
        if "second_per_grid_ts" in inspect.signature(self.hf.forward).parameters:
            inputs["second_per_grid_ts"] = torch.tensor([clip.grid.block_seconds], device=ids.device)
        if getattr(self.hf.config, "cluenet_time_labels", None) == "index":
            inputs["position_ids"] = self._positions(self.vlm.positions(ids[0].tolist(), clip.grid)).to(ids.device)
        return inputs

    def ordinary_logits(self, clip: _Clip, text: list[int]) -> Tensor:
        return self.hf(**self.ordinary_inputs(clip, text)).logits[0, -len(text) :]

    def ordinary_states(self, clip: _Clip, text: list[int], layers: Sequence[int]) -> list[Tensor]:
        """[N, D] states of the visual tokens at the input of each of these layers."""
        stack = attrgetter(self.vlm.family.text)(self.hf)
        with inputs_of([*stack.layers, stack.norm]) as found:
            self.hf(**self.ordinary_inputs(clip, text))
        columns = [column for column, token in enumerate(clip.ids) if token == self.vlm.placeholder]
        return [found[layer][0, columns[: clip.grid.tokens]] for layer in layers]

    def generated(self, clip: _Clip, pruned: Any, kept_N: Tensor, text_1LD: Tensor) -> list[int]:
        device, theirs = clip.pixels.device, self.features(clip)
        ids, length, start = pruned.ids_BP[0].to(device), text_1LD.shape[1], pruned.text_starts[0]
        positions = torch.cat([pruned.positions_3BP[:, 0], torch.arange(start, start + length).expand(3, -1)], dim=1)
        shown = lambda values: pruned.shown(_rows(values).cpu()).to(device)  # noqa: E731
        prompt, visual = self.embedded(ids[None]).clone(), shown(theirs.pooler_output)
        extra: dict[str, Any] = {}
        if self.vlm.family.deepstack:  # generate takes embeddings or DeepStack, so placeholders stay in the embeddings
            levels = [[shown(level)] for level in theirs.deepstack_features]
            output = BaseModelOutputWithDeepstackFeatures(pooler_output=[visual], deepstack_features=levels)
            extra["mm_encoder_outputs"] = {"video": output}
        else:
            prompt[0, ids == self.vlm.placeholder] = visual
        embeds = torch.cat([prompt, text_1LD], dim=1)
        tokens = self.hf.generate(
            inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long, device=device),
            position_ids=self._positions(positions).to(device), max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1,
            repetition_penalty=1.0, eos_token_id=None, **extra,
        )  # fmt: skip
        return tokens[0].tolist()

    def _positions(self, positions_3P: Tensor) -> Tensor:
        """As the model takes them, for a batch of one."""
        return positions_3P[:, None] if self.vlm.family.multimodal_rope else positions_3P[:1]


@cache
def opened(folder: str, device: str) -> _Both:
    """Once per folder and device."""
    vlm = VisionLanguageModel.load(folder).eval().to(device)
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    clips = [_clip(vlm, seed, *size, device=device) for seed, size in enumerate(((4, 40, 56), (6, 32, 32)))]
    return _Both(vlm, hf, clips)


def _clip(vlm: VisionLanguageModel, seed: int, count: int, height: int, width: int, *, device: str) -> _Clip:
    """Noise, and so short that Transformers counts Qwen2.5-VL's positions as the adapter does (`positions.multimodal`)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    frames = Frames(pixels, np.arange(count) / 16, count / 16)
    grid = vlm.grid(frames.frames_THWC, frames.seconds_T)
    batch = prefix_batch(vlm, [frames], [grid])
    return _Clip(
        frames, grid, batch.pixels.to(device), batch.grid_B3.to(device), vlm.video_ids(grid), batch.text_starts
    )  # fmt: skip


def _half_without_the_first_block(clip: _Clip, *, seed: int) -> Tensor:
    kept_N = torch.rand(clip.grid.tokens, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept_N[: clip.grid.per_block] = False
    return kept_N


def _rows(values: Any) -> Tensor:
    """Hugging Face's families return tensors, lists and tuples of them."""
    whole = torch.cat(list(values)) if isinstance(values, (tuple, list)) else values
    return whole.reshape(-1, whole.shape[-1])


def _assert_close(ours: Tensor, theirs: Tensor, what: str) -> None:
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)}, Hugging Face has {tuple(theirs.shape)}"
    difference, largest = float((ours - theirs).abs().max()), max(1.0, float(theirs.abs().max()))
    assert difference <= TOLERANCE * largest, f"{what}: differ by {difference:.2g}, the largest value is {largest:.2g}"
