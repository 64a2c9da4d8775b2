"""A small model of a real Hugging Face architecture, from a config: nothing of it is our own decoder.

The sizes that learn ClueWorld on two CPU cores are the defaults of the `tiny` backbone; initial values follow what was
measured to train from scratch (wider embeddings, small residual outputs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from cluenet.model.vlm import VisionLanguageModel

HALF = [0.5, 0.5, 0.5]
SPREAD = 0.05
"""Deviation of initial weights."""
MOST_PIXELS = 2**28
"""Of a whole clip, for families whose frames have any size."""


@dataclass(frozen=True)
class TinySizes:
    """`image`: side of a frame in pixels for families with one size of frames; others keep the size of the data."""

    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_layers: int
    patch: int
    image: int = 64


def new_model(tokenizer: PreTrainedTokenizerFast, *, family: str, seed: int, **sizes: int) -> VisionLanguageModel:
    """An untrained model; `sizes` as in `TinySizes`. Raises KeyError for a family that `families.FAMILIES` does not have."""
    size = TinySizes(**sizes)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family, tie_word_embeddings=True, cluenet_time_labels="index", **PARTS[family](tokenizer, size)
    )
    hf = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    for name, parameter in hf.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):  # deep-narrow models train steadily from scratch
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * size.layers))
    return VisionLanguageModel(hf, tokenizer, {"preprocessor_config.json": _processor_settings(family, size)})


def _processor_settings(family: str, size: TinySizes) -> dict[str, Any]:
    norm = {"image_mean": HALF, "image_std": HALF}
    if family.startswith("qwen"):
        pixels = {"shortest_edge": (2 * size.patch) ** 2, "longest_edge": MOST_PIXELS}
        return {**norm, "size": pixels, "patch_size": size.patch, "merge_size": 2, "temporal_patch_size": 2}
    if family == "smolvlm":
        longest = {"longest_edge": size.image}
        return {**norm, "size": longest, "max_image_size": longest}
    return {**norm, "size": {"height": size.image, "width": size.image}}


# ------------------------------------------------------------------------------------------ configs of the families


def _qwen3(tokenizer: PreTrainedTokenizerFast, size: TinySizes) -> dict[str, Any]:
    width = size.hidden // size.heads
    side = width * 5 // 32  # of the width/2 rotary frequencies, so many for height and for width; the rest is time
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_interleaved": True,
            "mrope_section": [width // 2 - 2 * side, side, side]}  # fmt: skip
    vision = {"num_position_embeddings": 64, "deepstack_visual_indexes": [], "hidden_act": "gelu"}
    return {
        "text_config": {**_text(tokenizer, size), "head_dim": width, "rope_parameters": rope},
        "vision_config": {**_qwen_vision(size), **vision},
        **_qwen_tokens(tokenizer),
    }


def _qwen2_5(tokenizer: PreTrainedTokenizerFast, size: TinySizes) -> dict[str, Any]:
    width = size.hidden // size.heads
    side = width * 3 // 16
    rope = {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": [width // 2 - 2 * side, side, side]
    }  # fmt: skip
    vision = {"tokens_per_second": 2, "window_size": 4 * size.patch, "fullatt_block_indexes": [size.vision_layers - 1]}
    return {
        "text_config": {**_text(tokenizer, size), "rope_parameters": rope},
        "vision_config": {**_qwen_vision(size), **vision, "hidden_act": "silu"},
        **_qwen_tokens(tokenizer),
    }


def _llava_onevision(tokenizer: PreTrainedTokenizerFast, size: TinySizes) -> dict[str, Any]:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False}
    return {
        "text_config": {"model_type": "qwen2", **_text(tokenizer, size)},
        "vision_config": {**_frame_vision(size), **vision},
        "image_token_id": _id(tokenizer, "<image>"), "video_token_id": _id(tokenizer, "<video>"),
        "image_grid_pinpoints": [[size.image, size.image]],
    }  # fmt: skip


def _internvl(tokenizer: PreTrainedTokenizerFast, size: TinySizes) -> dict[str, Any]:
    return {
        "text_config": {"model_type": "qwen2", **_text(tokenizer, size)}, "vision_config": _frame_vision(size),
        "image_token_id": _id(tokenizer, "<IMG_CONTEXT>"), "downsample_ratio": 0.5,
        "image_seq_length": (size.image // size.patch) ** 2 // 4,
    }  # fmt: skip


def _smolvlm(tokenizer: PreTrainedTokenizerFast, size: TinySizes) -> dict[str, Any]:
    return {
        "text_config": {"model_type": "llama", **_text(tokenizer, size)},
        "vision_config": {**_frame_vision(size), "hidden_act": "gelu_pytorch_tanh"},
        "image_token_id": _id(tokenizer, "<image>"), "scale_factor": 2, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


PARTS = {
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
}


def _text(tokenizer: PreTrainedTokenizerFast, size: TinySizes) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": size.hidden, "intermediate_size": size.hidden * 5 // 2,
        "num_hidden_layers": size.layers, "num_attention_heads": size.heads, "num_key_value_heads": size.heads,
        "max_position_embeddings": 8192, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "initializer_range": SPREAD,
    }  # fmt: skip


def _qwen_vision(size: TinySizes) -> dict[str, Any]:
    return {
        "depth": size.vision_layers, "hidden_size": size.vision_hidden, "intermediate_size": 2 * size.vision_hidden,
        "num_heads": 2, "patch_size": size.patch, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3,
        "out_hidden_size": size.hidden, "initializer_range": SPREAD,
    }  # fmt: skip


def _frame_vision(size: TinySizes) -> dict[str, Any]:
    return {
        "num_hidden_layers": size.vision_layers, "hidden_size": size.vision_hidden, "num_attention_heads": 2,
        "intermediate_size": 2 * size.vision_hidden, "patch_size": size.patch, "image_size": size.image,
        "num_channels": 3, "initializer_range": SPREAD,
    }  # fmt: skip


def _qwen_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "video_token_id", "image_token_id")
    tokens = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")
    return {name: _id(tokenizer, token) for name, token in zip(names, tokens)}


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return tokenizer.convert_tokens_to_ids(token)
