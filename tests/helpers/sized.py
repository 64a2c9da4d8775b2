"""Models of 20 million parameters and clips of 512 visual tokens: large enough that a pass costs more than calling it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

from cluenet.model.pipeline import ClueNet
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.records import Frames
from helpers.models import clip, tiny_model

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")
TEXT = "which one hits red blue green cyan ? why does it move what colour is the square then so"
SIDE = 128
FRAMES = {"qwen2_5_vl": 16, "qwen3_vl": 16, "internvl": 8}
"""Qwen's families put two frames into a block: 8 blocks of 8 x 8 tokens each."""


@functools.cache
def base_of(family: str) -> Path:
    """Untrained, on disk; its residual outputs are so large that what it writes follows from what it reads."""
    tokenizer = fit_tokenizer([TEXT], blocks=8, max_words=100, family=family)
    sizes = {"hidden": 384, "layers": 12, "heads": 6, "vision_hidden": 128, "vision_layers": 2, "patch": 8}
    vlm = new_model(tokenizer, family=family, seed=0, image=SIDE, **sizes)
    with torch.no_grad():
        for name, parameter in vlm.text.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(10.0)
    folder = Path(tempfile.mkdtemp(prefix=f"cluenet-sized-{family}-"))
    vlm.save(folder)
    return folder


def model_of(family: str, **section: Any) -> ClueNet:
    """Keywords are fields of the `model:` section. Its LM head is not its embeddings, so that it does not repeat its last word;
    it writes no special tokens."""
    model = tiny_model(folder=base_of(family), **section).eval()
    tokenizer = model.vlm.tokenizer
    head_VD = torch.randn(model.vlm.embeddings_VD.shape, generator=torch.Generator().manual_seed(1)) * 0.3
    head_VD[[*tokenizer.added_tokens_decoder]] = 0.0
    model.vlm.hf.get_output_embeddings().weight = torch.nn.Parameter(head_VD)
    return model


def clip_of(family: str, seed: int = 0) -> Frames:
    return clip(seed, frames=FRAMES[family], height=SIDE, width=SIDE)
