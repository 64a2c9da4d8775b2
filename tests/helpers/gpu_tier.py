"""Models on a device, at two sizes, and what the device itself can do. Needs torch, transformers, pydantic, numpy and safetensors
alone; nothing of Ray.

Models are random, of a real architecture; clips are noise. Seconds are the clock's, the device being waited for.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cluenet.config.model import ModelSection
from cluenet.config.train import TrainSection
from cluenet.model.build import build_model
from cluenet.model.loading import DType
from cluenet.model.pipeline import ClueNet
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.plugins import load_components
from cluenet.records import Example, Frames
from helpers.models import COLOURS, clip, example
from helpers.released import qwen3_vl_2b

COMPONENTS = ("backbones", "clue_extractors", "clue_filters", "reasoners")
SMALL_SIZES = {"hidden": 64, "layers": 3, "heads": 2, "vision_hidden": 32, "vision_layers": 1, "patch": 8}
SMALL_SIDE = 32
VERBS = ("hits", "so")


@cache
def small_base() -> Path:
    """An untrained backbone on disk; written once per process."""
    tokenizer = fit_tokenizer(["which one hits red blue green cyan ? . so"], blocks=4, max_words=100, family="qwen3_vl")
    folder = Path(tempfile.mkdtemp(prefix="cluenet-gpu-"))
    vlm = new_model(tokenizer, family="qwen3_vl", seed=0, image=SMALL_SIDE, **SMALL_SIZES)
    with torch.no_grad():  # a random model repeats its last token, which stands for the chat: make it write words
        vlm.embeddings_VD[list(tokenizer.added_tokens_decoder)] *= 0.05
    vlm.save(folder)
    return folder


@dataclass(frozen=True)
class Scale:
    """How much is computed."""

    base: Callable[[], Path]
    side: int  # of the frames, in pixels
    frames: int
    clips: int
    questions: int  # about each clip
    written: int  # tokens of an open answer
    steps: int
    precision: str  # of training
    dtype: DType  # of the weights at inference


SMALL = Scale(
    small_base, SMALL_SIDE, frames=4, clips=2, questions=3, written=6, steps=2, precision="fp32", dtype="float32"
)
"""Seconds on a CPU."""
LARGE = Scale(
    qwen3_vl_2b, 512, frames=16, clips=1, questions=6, written=64, steps=6, precision="bf16", dtype="bfloat16"
)
"""2.1 billion parameters and 2048 visual tokens a clip: training takes up to 80 GB."""


def model_on(
    scale: Scale, device: str, *, dtype: DType | None = None, train: TrainSection | None = None, **section: Any
) -> ClueNet:
    """Keywords are fields of the `model:` section. `dtype`: of the weights; None: as for inference. `train`: how it is tuned."""
    load_components(only=COMPONENTS)
    backbone = {"name": "hf_vlm", "path": str(scale.base()), "dtype": dtype or scale.dtype}
    values = {"clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2}, "clue_filter": "adaptive", **section}
    model = ModelSection.model_validate({"backbone": backbone, **values})
    return build_model(model, scale.base(), seed=0, train=train).to(device)


def clips_of(scale: Scale, count: int | None = None) -> list[Frames]:
    """None: as many as a batch has."""
    size = {"frames": scale.frames, "height": scale.side, "width": scale.side}
    return [clip(seed, **size) for seed in range(count or scale.clips)]


def asked(number: int) -> Example:
    """Eight different questions."""
    verb, colour = VERBS[number // 4 % 2], COLOURS[number % 4]
    return example(number, id=f"q{number}", question=f"which one {verb} {colour} ?")


def opened(number: int) -> Example:
    """The same without options."""
    return replace(asked(number), options=(), answer=None, clues=None, chain=None)


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, *, times: int = 3) -> float:
    """Median of `times`, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        wait_for(device)
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def peak_bytes(device: str) -> int | None:
    """Of memory that torch has taken since the last reset; None on a CPU, where it does not count."""
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else None


@dataclass(frozen=True)
class Ceilings:
    """What nothing on this device is faster than: bf16 matrix products, operations per second; a copy, bytes per second, those that
    are read and those that are written."""

    operations: float
    bytes: float

    @classmethod
    def of(cls, device: str, *, side: int = 8192, gigabytes: float = 2.0) -> Ceilings:
        left, right = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
        source = torch.randint(0, 256, (int(gigabytes * 2**30),), device=device, dtype=torch.uint8)
        target = torch.empty_like(source)
        times = 10

        def products() -> None:
            for _ in range(times):
                torch.mm(left, right)

        def copies() -> None:
            for _ in range(times):
                target.copy_(source)

        return cls(times * 2 * side**3 / seconds_of(products, device),
                   times * 2 * len(source) / seconds_of(copies, device))  # fmt: skip
