"""A checkpoint with the sizes of a released model and random weights: what it computes means nothing, how long it takes does."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from cluenet.model.tiny_tokenizer import fit_tokenizer

TEXT = "which one hits red blue green cyan ? why does it move then so ."
BLOCKS = 64
TEXT_SIZES = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
}  # fmt: skip
VISION_SIZES = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16, "temporal_patch_size": 2,
    "spatial_merge_size": 2, "out_hidden_size": 2048, "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
    "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
"""Both from config.json of Qwen/Qwen3-VL-2B-Instruct on the hub."""
VIDEO_PIXELS = {"shortest_edge": 4096, "longest_edge": 25165824}
CUT = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}


@functools.cache
def qwen3_vl_2b() -> Path:
    """The folder, bf16, 4 GB; written once per process. Its tokenizer knows a few words, one token each."""
    tokenizer = fit_tokenizer([TEXT], blocks=BLOCKS, max_words=100, family="qwen3_vl")
    folder = Path(tempfile.mkdtemp(prefix="cluenet-qwen3-vl-2b-"))
    _model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    settings = {"image_mean": half, "image_std": half, "size": VIDEO_PIXELS, **CUT}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _model(tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    torch.manual_seed(0)
    names = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
             "video_token_id": "<|video_pad|>", "image_token_id": "<|image_pad|>"}  # fmt: skip
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(
        "qwen3_vl", text_config={**TEXT_SIZES, **ids}, vision_config=VISION_SIZES, tie_word_embeddings=True,
        cluenet_time_labels="index", **{name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
    )  # fmt: skip
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        hf = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16)
    _write_words_alone(hf, tokenizer)
    return hf


@torch.no_grad()
def _write_words_alone(hf: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """Rows of the embeddings that stand for no word, or for the chat, are small, so that a random model writes words."""
    embeddings_VD = hf.get_input_embeddings().weight
    embeddings_VD[len(tokenizer) :] *= 0.01
    embeddings_VD[list(tokenizer.added_tokens_decoder)] *= 0.01
