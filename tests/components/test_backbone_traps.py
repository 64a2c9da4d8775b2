"""What silently gives wrong numbers with Hugging Face's multimodal models, one test per trap, each named after it.

Where Hugging Face's behaviour is the trap, the test shows it too: it fails when a new version has it no longer.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForImageTextToText
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.video_utils import VideoMetadata

from cluenet.model.attention_map import attention_map
from cluenet.model.families import FAMILIES
from cluenet.model.grid import Grid
from cluenet.model.hooks import inputs_of
from cluenet.model.packing import Segment, pack
from cluenet.model.pixels import Patches, per_frame_budget, per_video_budget
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.tiny import PARTS, TinySizes, new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.model.vision import TowerStates
from cluenet.model.vlm import VisionLanguageModel
from helpers.checkpoints import NORMS, checkpoint
from helpers.models import clip

ONE_AXIS = ("llava_onevision", "internvl", "smolvlm")
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def adapter(family) -> VisionLanguageModel:
    return VisionLanguageModel.load(checkpoint(family)).eval()


def hugging_face(family):
    return AutoModelForImageTextToText.from_pretrained(checkpoint(family), dtype=torch.float32).eval()


def prompt_of(vlm, c, **options):
    return prefix_batch(vlm, [c], [vlm.grid(c.frames_THWC, c.seconds_T)], **options)


def logits_after(vlm, prompt, text):
    packed = pack([[Segment(vlm.ids(text))]], offsets=prompt.text_starts, pad=vlm.pad)
    embeds = F.embedding(packed.ids_BL, vlm.embeddings_VD)
    prefix = vlm.prefix(prompt, layer=None, whole=True)
    return vlm.head(vlm.text_pass(embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix))


# ----------------------------------------------------------------------------------------------- 1. configs


@families
def test_tied_embeddings_are_a_key_at_the_top_of_the_config(family):
    """In text_config it is ignored, and a model trained from scratch would have a head that nobody initialised to match."""
    vlm = small(family)
    assert vlm.hf.get_output_embeddings().weight is vlm.embeddings_VD
    assert adapter(family).hf.get_output_embeddings().weight is not adapter(family).embeddings_VD


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_rotary_sections_fill_half_a_head(family, width):
    size = TinySizes(hidden=2 * width, layers=1, heads=2, vision_hidden=32, vision_layers=1, patch=8)
    parts = PARTS[family](fit_tokenizer(["red"], blocks=1, max_words=10, family=family), size)
    assert sum(parts["text_config"]["rope_parameters"]["mrope_section"]) == width // 2
    assert parts["vision_config"]["out_hidden_size"] == 2 * width


@families
def test_special_tokens_are_inside_a_small_vocabulary(family):
    """Defaults such as 151643 would be outside, and index out of the embeddings."""
    config = small(family).hf.config
    ids = [
        config.text_config.pad_token_id,
        config.text_config.eos_token_id,
        getattr(config, FAMILIES[family].placeholder),
    ]
    assert all(0 <= token < config.text_config.vocab_size for token in ids)


def small(family) -> VisionLanguageModel:
    tokenizer = fit_tokenizer(["red hits blue"], blocks=4, max_words=50, family=family)
    sizes = {"hidden": 64, "layers": 2, "heads": 2, "vision_hidden": 32, "vision_layers": 1, "patch": 8, "image": 32}
    return new_model(tokenizer, family=family, seed=0, **sizes).eval()


# ------------------------------------------------------------------------------------------------ 2. pixels


@families
def test_means_and_deviations_are_the_checkpoints_and_no_default(family):
    mean, std = NORMS[family]
    processor = adapter(family).processor
    assert (processor.mean, processor.std) == (tuple(mean), tuple(std))
    grey = np.full((2, 32, 32, 3), 100, dtype=np.uint8)
    channels = adapter(family).pixels(grey, None)
    wanted = [(100 / 255 - m) / s for m, s in zip(mean, std)]
    found = sorted({round(float(value), 4) for value in channels.unique()})
    assert found == sorted({round(value, 4) for value in wanted})


def test_qwen2_5_counts_pixels_per_frame_and_qwen3_per_video():
    settings, patches = {"min_pixels": 1, "max_pixels": 64 * 64}, Patches(8, 2, 2)
    one, many = per_frame_budget(settings, patches), per_video_budget(settings, patches)
    assert one(2, 128, 128) == one(32, 128, 128) == (64, 64)
    assert many(2, 128, 128) == (32, 32)
    assert many(32, 128, 128) == (16, 16)  # never less than a visual token


def test_qwen3_rounds_an_odd_number_of_frames_as_hugging_face_does():
    """5 frames count as 4 (Python rounds halves to even), although 6 are encoded."""
    fit = per_video_budget({"min_pixels": 1, "max_pixels": 4 * 64 * 64}, Patches(8, 2, 2))
    assert fit(4, 64, 64) == fit(5, 64, 64) == (64, 64)
    assert fit(6, 64, 64) < (64, 64)


def test_smolvlm_frames_whose_normalised_pixels_are_all_zero_are_not_dropped():
    vlm, hf = adapter("smolvlm"), hugging_face("smolvlm")
    pixels = torch.randn(4, 3, 32, 32)
    pixels[1] = 0.0
    assert len(torch.cat(hf.model.get_image_features(pixels[None]).pooler_output)) == 3 * 16  # theirs are gone
    embeds, _ = vlm.encode(pixels, torch.tensor([[4, 8, 8]]))
    assert len(embeds) == 4 * 16
    others = [0, 2, 3]
    assert torch.allclose(
        embeds.view(4, 16, -1)[others], vlm.encode(pixels[others], torch.tensor([[3, 8, 8]]))[0].view(3, 16, -1)
    )


# ----------------------------------------------------------------------------------------------- 3. prompts


def theirs(family, count, tokens) -> str:
    """What Hugging Face's own processor puts in place of the video token, four frames per second."""
    metadata = VideoMetadata(total_num_frames=count, fps=4, duration=count / 4, frames_indices=list(range(count)))
    pixels = torch.zeros(1, count, 3, 32, 32)
    token = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
    }
    me = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2), video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>", vision_end_token="<|vision_end|>",
    )  # fmt: skip
    if family == "qwen2_5_vl":
        grid = torch.tensor([[(count + 1) // 2, 2, 2 * tokens]])
        return Qwen2_5_VLProcessor.replace_video_token(me, {"video_grid_thw": grid}, 0)
    if family == "qwen3_vl":
        me._calculate_timestamps = lambda *args: Qwen3VLProcessor._calculate_timestamps(me, *args)
        inputs = {"video_grid_thw": torch.tensor([[(count + 1) // 2, 2, 2 * tokens]]), "video_metadata": [metadata]}
        return Qwen3VLProcessor.replace_video_token(me, inputs, 0)
    if family == "llava_onevision":
        me = SimpleNamespace(num_image_tokens=4 * tokens, video_token="<video>")
        return LlavaOnevisionProcessor.replace_video_token(me, {"pixel_values_videos": pixels}, 0)
    if family == "internvl":
        me = SimpleNamespace(
            start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=tokens
        )
        return InternVLProcessor.replace_video_token(me, {"pixel_values_videos": pixels}, 0)
    me = SimpleNamespace(image_seq_len=tokens, **token)
    return SmolVLMProcessor.replace_video_token(me, {"pixel_values": pixels, "video_metadata": [metadata]}, 0)


@families
@pytest.mark.parametrize("count", [1, 4, 5, 130])
def test_what_a_prompt_says_of_a_video_is_what_the_hf_processor_says(family, count):
    row = FAMILIES[family]
    temporal = 2 if row.patches else 1
    times = np.arange(-(-count // temporal) * temporal).clip(max=count - 1) / 4
    seconds = tuple(float(block.mean()) for block in times.reshape(-1, temporal))
    grid = Grid(len(seconds), 2, 2, seconds, temporal / 4)
    ours = str(row.video_text(grid, [row.label(block, at) for block, at in enumerate(seconds)]))
    wanted = theirs(family, count, 4)
    assert ours == (f"<|vision_start|>{wanted}<|vision_end|>" if family == "qwen2_5_vl" else wanted)


def test_qwen3_prompts_are_not_wrapped_twice():
    """The template writes marks around the place of a video; the processor of Transformers 5.23 leaves them there."""
    vlm = adapter("qwen3_vl")
    prompt = vlm.tokenizer.decode(vlm.video_ids(vlm.grid(clip(0).frames_THWC, clip(0).seconds_T)))
    assert prompt.startswith("<|im_start|>user\n<0.1 seconds><|vision_start|><|video_pad|>")
    assert prompt.endswith("<|vision_end|>")
    assert prompt.count("<|vision_start|>") == prompt.count("<|vision_end|>") == 2


def test_smolvlm_checkpoints_have_a_template_without_videos():
    """The processor takes its own then, and so do we."""
    vlm = adapter("smolvlm")
    assert "video" not in vlm.tokenizer.chat_template
    assert vlm.chat_parts() == ("<|im_start|>User: ", "", "<end_of_utterance>\nAssistant:")


@families
def test_a_prompt_and_its_question_are_tokenised_apart(family):
    """Else a question could melt into the line break before it, and the prompt would depend on the question."""
    vlm, c = adapter(family), clip(0)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    ids = vlm.video_ids(grid)
    assert prompt_of(vlm, c).ids_BP[0].tolist() == ids
    head, between, _ = vlm.chat_parts()
    text = head + str(vlm.family.video_text(grid, vlm.labels(grid))) + between
    assert vlm.tokenizer.decode(ids) == text


# --------------------------------------------------------------------------------------------- 4. two passes


def test_deepstack_is_in_the_states_that_hf_hidden_states_miss():
    vlm, c = adapter("qwen3_vl"), clip(0)
    prompt = prompt_of(vlm, c)
    inputs = vlm._prompt(prompt)
    hidden = vlm.text(**inputs, output_hidden_states=True).hidden_states
    columns = prompt.visual_index_BN[0]
    for layer, missed in enumerate([False, True, True, False]):
        ours = vlm.prefix(prompt, layer=layer, whole=False).visual_BND[0]
        assert torch.allclose(ours, hidden[layer][0, columns], atol=1e-4) == (not missed), layer


@families
def test_ending_a_pass_early_leaves_the_model_as_it_was(family):
    vlm, c = adapter(family), clip(0)
    before = logits_after(vlm, prompt_of(vlm, c), "why ?")
    hooks = [len(module._forward_pre_hooks) for module in vlm.modules()]
    vlm.prefix(prompt_of(vlm, c), layer=1, whole=False)
    vlm.tower(prompt_of(vlm, c).pixels, prompt_of(vlm, c).grid_B3)
    assert [len(module._forward_pre_hooks) for module in vlm.modules()] == hooks
    assert torch.equal(logits_after(vlm, prompt_of(vlm, c), "why ?"), before)


@families
def test_the_lens_of_the_last_states_is_the_prediction(family):
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    top = vlm.prefix(prompt, layer=vlm.layers, whole=True).visual_BND
    states = vlm.read_layers(prompt, lambda states: states)[-1]  # the stack's own output
    assert torch.allclose(vlm.lens(top), vlm.head(states), atol=1e-4 * float(vlm.head(states).abs().max()))


@pytest.mark.parametrize("family", ONE_AXIS)
def test_gaps_in_positions_are_no_borders_of_packed_sequences(family):
    """Without a mask and a cache, as in training, Transformers takes a gap for the start of another sequence."""
    vlm, c = adapter(family), clip(0, frames=3)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    kept = torch.ones(grid.tokens, dtype=torch.bool)
    kept[5:20] = False
    prompt = prompt_of(vlm, c, kept=[kept])
    inputs = vlm._prompt(prompt)
    embeds, positions = inputs["inputs_embeds"], prompt.positions_3BP[0]
    ones = torch.ones(embeds.shape[:2], dtype=torch.long)
    wanted, packed = (
        vlm.text(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state
        for mask in (ones, None)
    )
    states = vlm.prefix(prompt, layer=vlm.layers, whole=True).visual_BND
    ours = vlm.text.norm(states)[0, prompt.visual_mask_BN[0]]
    columns = prompt.visual_index_BN[0, prompt.visual_mask_BN[0]]
    assert torch.allclose(ours, wanted[0, columns], atol=1e-4)
    assert float((packed - wanted).abs().max()) > 0.1


def test_qwen2_5_text_goes_on_behind_the_highest_position_of_all_axes():
    """As Transformers 4.57 counted and Qwen trained. 5.23 leaves time out, and puts text among the frames of long videos."""
    vlm, hf = adapter("qwen2_5_vl"), hugging_face("qwen2_5_vl")

    def both(seconds):
        grid = Grid(6, 2, 3, tuple(seconds * block for block in range(6)), seconds)
        ids = vlm.video_ids(grid) + vlm.ids("why ?")
        row = torch.tensor([ids])
        theirs, _ = hf.model.get_rope_index(
            row, mm_token_type_ids=(row == vlm.placeholder).int() * 2, video_grid_thw=torch.tensor([[6, 4, 6]]),
            second_per_grid_ts=torch.tensor([seconds]),
        )  # fmt: skip
        return vlm.positions(ids, grid), theirs[:, 0], ids.index(vlm.placeholder), 36

    ours, theirs, first, tokens = both(0.1)  # time does not reach beyond the columns
    assert torch.equal(ours, theirs)
    ours, theirs, first, tokens = both(2.0)  # 4 positions per block: time ends at 20
    behind = slice(first + tokens, None)
    assert torch.equal(ours[:, : first + tokens], theirs[:, : first + tokens])
    assert int(ours[0, first + tokens - 1]) == first + 20
    assert torch.equal(ours[:, behind], first + 21 + torch.arange(ours[:, behind].shape[1]).expand(3, -1))
    assert int(theirs[0, behind][0]) == first + 3


def test_qwen3_positions_are_those_of_hugging_face():
    vlm, hf = adapter("qwen3_vl"), hugging_face("qwen3_vl")
    for rows, cols in ((2, 3), (3, 2)):
        grid = Grid(5, rows, cols, tuple(0.25 + block for block in range(5)), 1.0)
        ids = vlm.video_ids(grid) + vlm.ids("why ?")
        row, patches = torch.tensor([ids]), torch.tensor([[5, 2 * rows, 2 * cols]])
        theirs, _ = hf.model.get_rope_index(
            row, mm_token_type_ids=(row == vlm.placeholder).int() * 2, video_grid_thw=patches
        )  # fmt: skip
        assert torch.equal(vlm.positions(ids, grid), theirs[:, 0])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_positions_left_by_an_earlier_call_are_not_used(family):
    vlm, c = adapter(family), clip(0)
    before = logits_after(vlm, prompt_of(vlm, c), "why ?")
    vlm.hf.model.rope_deltas = torch.tensor([[-50]])
    assert torch.equal(logits_after(vlm, prompt_of(vlm, c), "why ?"), before)


@families
def test_what_stands_around_pruned_frames_goes_too(family):
    vlm, c = adapter(family), clip(0, frames=6)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    whole = prompt_of(vlm, c)
    kept = torch.zeros(grid.tokens, dtype=torch.bool)
    kept[grid.per_block + 1] = True  # one token, of the second block
    pruned = prompt_of(vlm, c, kept=[kept])
    one = VideoTextOf(vlm, grid)
    assert vlm.tokenizer.decode(pruned.ids_BP[0]) == one.with_only(block=1, tokens=1)
    assert int(pruned.visual_mask_BN.sum()) == 1
    assert pruned.text_starts == whole.text_starts  # the question stands where it stood
    column = int(whole.visual_index_BN[0, grid.per_block + 1])
    mine = int(pruned.visual_index_BN[0, grid.per_block + 1])
    assert torch.equal(pruned.positions_3BP[:, 0, mine], whole.positions_3BP[:, 0, column])


class VideoTextOf:
    """A prompt by hand."""

    def __init__(self, vlm, grid):
        self.vlm, self.grid = vlm, grid
        self.video = vlm.family.video_text(grid, vlm.labels(grid))

    def with_only(self, *, block: int, tokens: int) -> str:
        head, between, _ = self.vlm.chat_parts()
        pad = self.vlm.tokenizer.convert_ids_to_tokens(self.vlm.placeholder)
        kept = self.video.blocks[block].replace(pad * self.grid.per_block, pad * tokens)
        return head + self.video.before + kept + self.video.after + between


@families
def test_pruning_nothing_changes_nothing(family):
    vlm, c = adapter(family), clip(0)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    all_of_it = prompt_of(vlm, c, kept=[torch.ones(grid.tokens, dtype=torch.bool)])
    assert torch.equal(logits_after(vlm, all_of_it, "why ?"), logits_after(vlm, prompt_of(vlm, c), "why ?"))


def test_the_newline_of_llava_belongs_to_no_frame():
    vlm, c = adapter("llava_onevision"), clip(0)
    grid, prompt = vlm.grid(c.frames_THWC, c.seconds_T), prompt_of(vlm, c)
    embeds, _ = vlm.encode(prompt.pixels, prompt.grid_B3)
    assert len(embeds) == grid.tokens + 1
    assert torch.equal(embeds[-1], vlm.hf.model.image_newline)
    assert int((prompt.ids_BP == vlm.placeholder).sum()) == grid.tokens + 1
    assert prompt.visual_index_BN.shape[1] == int(prompt.visual_mask_BN.sum()) == grid.tokens
    assert len(vlm.visual_tokens(prompt.pixels, [grid])) == grid.tokens
    kept = torch.zeros(grid.tokens, dtype=torch.bool)
    kept[3] = True
    assert int((prompt_of(vlm, c, kept=[kept]).ids_BP == vlm.placeholder).sum()) == 2  # the token and the newline


def test_qwen2_5_tower_states_are_in_the_order_of_the_prompt():
    """Inside the tower they are sorted by attention window, which would mix clips up."""
    vlm, c = adapter("qwen2_5_vl"), clip(0, frames=4, height=40, width=56)
    prompt = prompt_of(vlm, c)
    with inputs_of([vlm.hf.model.visual.merger], stop_at=vlm.hf.model.visual.merger) as found:
        vlm.hf.model.visual(prompt.pixels, grid_thw=prompt.grid_B3)
    states = vlm.tower(prompt.pixels, prompt.grid_B3)
    assert not torch.equal(states.states, found[0])
    wanted = vlm.hf.model.visual(prompt.pixels, grid_thw=prompt.grid_B3).pooler_output
    assert torch.allclose(vlm.project(states)[0], wanted, atol=1e-5)


@families
def test_tower_states_survive_being_written_down(family, tmp_path):
    """For a store of features: clip by clip, in any order."""
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    states = vlm.tower(prompt.pixels, prompt.grid_B3)
    torch.save({"states": states.states, "deepstack": states.deepstack, "rows": states.rows}, tmp_path / "clip.pt")
    again = TowerStates(**torch.load(tmp_path / "clip.pt"))
    for ours, wanted in zip(
        (vlm.project(again)[0], *vlm.project(again)[1]), (vlm.project(states)[0], *vlm.project(states)[1])
    ):
        assert torch.equal(ours, wanted)
    assert len(states.deepstack) == (2 if family == "qwen3_vl" else 0)


# -------------------------------------------------------------------------------------- 6. attention maps


@families
def test_attention_maps_are_hugging_faces_and_the_fast_attention_comes_back(family):
    """Only eager attention has them, for the whole stack: the masks of one layer alone would be of the wrong kind."""
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    prefix = vlm.prefix(prompt, layer=None, whole=True)
    packed = pack([[Segment(vlm.ids("why does it move ?"))]], offsets=prompt.text_starts, pad=vlm.pad)
    embeds = F.embedding(packed.ids_BL, vlm.embeddings_VD)
    before = logits_after(vlm, prompt, "why ?")
    ours = attention_map(vlm, embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix, layer=3)
    assert torch.equal(logits_after(vlm, prompt, "why ?"), before)
    vlm.text.set_attn_implementation("eager")
    whole = torch.cat([vlm._prompt(prompt)["inputs_embeds"], embeds], dim=1)
    positions = torch.cat([prompt.positions_3BP, packed.positions_BL.expand(3, 1, -1)], dim=-1)
    extra = {}
    if vlm.family.deepstack:
        inputs = vlm._prompt(prompt)
        mask = F.pad(inputs["visual_pos_masks"], (0, embeds.shape[1]))
        extra = {"visual_pos_masks": mask, "deepstack_visual_embeds": inputs["deepstack_visual_embeds"]}
    maps = vlm.text(
        inputs_embeds=whole, attention_mask=torch.ones(whole.shape[:2], dtype=torch.long), output_attentions=True,
        position_ids=positions if vlm.family.multimodal_rope else positions[0], **extra,
    ).attentions  # fmt: skip
    assert torch.allclose(ours, maps[2].mean(1)[:, -embeds.shape[1] :], atol=1e-4)
    assert torch.allclose(ours.sum(-1), torch.ones(ours.shape[:2]), atol=1e-5)


# ------------------------------------------------------------------------------------------------ 8. caches


@families
def test_a_shared_prompt_may_be_used_again_and_again(family):
    """Passes must not write into it: caches of Transformers grow in place."""
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    prefix = vlm.prefix(prompt, layer=None, whole=True)
    before = [(keys.clone(), values.clone()) for keys, values in prefix.keys_values]
    packed = pack([[Segment(vlm.ids("why ?"))]], offsets=prompt.text_starts, pad=vlm.pad)
    embeds = F.embedding(packed.ids_BL, vlm.embeddings_VD)
    passes = [vlm.text_pass(embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix) for _ in range(2)]
    assert torch.equal(*passes)
    for (keys, values), (k, v) in zip(before, prefix.keys_values):
        assert torch.equal(keys, k)
        assert torch.equal(values, v)
