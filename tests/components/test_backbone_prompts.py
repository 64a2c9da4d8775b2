"""What silently gives wrong numbers in configs, pixels and prompts of Hugging Face's multimodal models: a test per trap, named
after it. Where Hugging Face's behaviour is the trap, the test shows it too: it fails when a new version has it no longer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.video_utils import VideoMetadata

from cluenet.model.families import FAMILIES
from cluenet.model.grid import Grid
from cluenet.model.pixels import Patches, per_frame_budget, per_video_budget
from cluenet.model.tiny import PARTS, TinySizes, new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.model.vlm import VisionLanguageModel
from helpers.adapters import adapter, hugging_face, prompt_of
from helpers.checkpoints import NORMS
from helpers.models import clip

families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


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
