"""What a model does on a device: speed and memory of both training stages, shared prompts, pruned ones, the engine beside
Hugging Face's `generate`. Needs torch, transformers, pydantic, numpy and safetensors alone; nothing of Ray.

Models are random, of a real architecture; clips are noise. Seconds are the clock's, the device being waited for.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cluenet.config.model import ModelSection
from cluenet.config.train import TrainSection
from cluenet.model.batch import Batch
from cluenet.model.build import build_model
from cluenet.model.engine.engine import Answered, Engine, Question
from cluenet.model.optimizers import optimizers_of
from cluenet.model.pipeline import ClueNet
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.plugins import load_components
from cluenet.records import Example, Frames
from cluenet.testing.backbone_pair import BackbonePair, Clip
from cluenet.train.group import Group
from cluenet.train.stepping import Stepper
from cluenet.train.strategies import Setup
from cluenet.train.strategies.ddp import DdpStrategy
from helpers.models import clip, example

COMPONENTS = ("backbones", "clue_extractors", "clue_filters", "reasoners")
NO_CLUES = {"clue_extractor": "none", "clue_filter": "keep_all", "reasoner": "direct"}


@dataclass(frozen=True)
class Scale:
    """How much is computed."""

    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_layers: int
    side: int  # of the frames, in pixels
    frames: int
    clips: int
    questions: int  # about each clip
    written: int  # tokens of an open answer
    steps: int
    precision: str
    family: str = "qwen3_vl"


SMALL = Scale(64, 3, 2, 32, 1, side=32, frames=4, clips=2, questions=3, written=6, steps=2, precision="fp32")
"""Seconds on a CPU."""
LARGE = Scale(1536, 24, 12, 768, 12, side=224, frames=16, clips=8, questions=6, written=64, steps=10, precision="bf16")
"""Some 0.7 billion parameters and 392 visual tokens a clip: fits a GPU of 24 GB."""


@cache
def base_of(scale: Scale) -> Path:
    """An untrained backbone on disk; written once per process."""
    tokenizer = fit_tokenizer(
        ["which one hits red blue green cyan ? . so"], blocks=scale.frames, max_words=100, family=scale.family
    )
    names = ("hidden", "layers", "heads", "vision_hidden", "vision_layers")
    sizes = {name: getattr(scale, name) for name in names}
    folder = Path(tempfile.mkdtemp(prefix="cluenet-gpu-"))
    vlm = new_model(tokenizer, family=scale.family, seed=0, patch=8, image=scale.side, **sizes)
    with torch.no_grad():  # a random model repeats its last token, which stands for the chat: make it write words
        vlm.embeddings_VD[list(tokenizer.added_tokens_decoder)] *= 0.05
    vlm.save(folder)
    return folder


def model_on(scale: Scale, device: str, **section: Any) -> ClueNet:
    """Keywords are fields of the `model:` section."""
    load_components(only=COMPONENTS)
    values = {"clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2}, "clue_filter": "adaptive", **section}
    return build_model(ModelSection.model_validate({"backbone": "tiny", **values}), base_of(scale), seed=0).to(device)


def clips_of(scale: Scale) -> list[Frames]:
    size = {"frames": scale.frames, "height": scale.side, "width": scale.side}
    return [clip(seed, **size) for seed in range(scale.clips)]


def seconds_of(work: Callable[[], object], device: str, *, times: int = 3) -> float:
    """Median of `times`, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def peak_bytes(device: str) -> int | None:
    """Of memory that torch has taken since the last reset; None on a CPU, where it does not count."""
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else None


# ------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Trained:
    """A stage: tokens that went through the decoder in a step, those that a pass of the text has and those of the prompts."""

    losses: list[float]
    tokens: int
    seconds: float  # of a step
    peak: int | None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def train(scale: Scale, device: str, stage: str) -> Trained:
    """`scale.steps` optimiser steps of the same batch, and one before them that is not timed."""
    model = model_on(scale, device).train()
    settings = TrainSection.model_validate({
        "precision": scale.precision, stage: {"steps": scale.steps + 1, "optimizer": "adamw", "lr": 1e-4, "warmup_steps": 0},
    })  # fmt: skip
    chosen, group = getattr(settings, stage), Group(0, 1, device)
    strategy = DdpStrategy(model, Setup(settings, chosen, group, lambda: optimizers_of(model, chosen)))
    stepper = Stepper(SimpleNamespace(seed=0, train=settings), stage, group)  # type: ignore[arg-type]
    asked = [example(number) for number in range(scale.questions)]
    batch = model.collate([(one, asked) for one in clips_of(scale)], seed=0, shuffle_options=True)
    numbers = iter(range(scale.steps + 1))
    losses: list[float] = []
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        losses.append(float(stepper.step(strategy, [batch], next(numbers))["loss"]))

    seconds = seconds_of(step, device, times=scale.steps)
    return Trained(losses, tokens_of(batch), seconds, peak_bytes(device))


def tokens_of(batch: Batch) -> int:
    """Of the prompts, the questions in the extraction pass and the answer pass, without padding."""
    passes = [batch.answer.packed, *([batch.extraction] if batch.extraction else [])]
    return int(batch.prefix.valid_BP.sum()) + sum(
        int(rows.allowed_BLL.diagonal(dim1=1, dim2=2).sum()) for rows in passes
    )


# ------------------------------------------------------------------------------------------------------ inference


@dataclass(frozen=True)
class Reused:
    """Seconds of a question about a clip, asked with others: the clip being watched for each, and once for all."""

    answers_agree: bool
    watched_each: float
    watched_once: float


def prefix_reuse(scale: Scale, device: str) -> Reused:
    model, (frames, *_) = model_on(scale, device, reasoner="clue_chain"), clips_of(scale)
    examples = [example(number) for number in range(scale.questions)]
    kept: dict[bool, list[Answered]] = {}

    def ask(once: bool) -> None:
        with Engine(model, device=device) as engine:
            kept[once] = engine.answer([Question(0 if once else n, one, frames) for n, one in enumerate(examples)])

    seconds = {once: seconds_of(lambda once=once: ask(once), device) / scale.questions for once in (False, True)}
    scores = [torch.tensor([one.answer.option_logprobs[:3] for one in kept[once]]) for once in (False, True)]
    return Reused(torch.allclose(*scores, atol=1e-3), seconds[False], seconds[True])


def pruning(
    scale: Scale, device: str, shares: Sequence[float] = (1.0, 0.5, 0.25, 0.1)
) -> dict[float, tuple[int, float]]:
    """By share of visual tokens that the decoder gets to see: tokens of a prompt, and seconds of a pass over all prompts."""
    vlm, clips = model_on(scale, device).eval().vlm, clips_of(scale)
    grids, found = [vlm.grid_of(one) for one in clips], {}
    for share in shares:
        kept = [torch.arange(grid.tokens) < max(1, round(share * grid.tokens)) for grid in grids]
        prompts = prefix_batch(vlm, clips, grids, kept=kept).to(device)
        with torch.no_grad():
            seconds = seconds_of(lambda prompts=prompts: vlm.prefix(prompts, layer=None, whole=True), device)
        found[share] = int(prompts.valid_BP[0].sum()), seconds
    return found


@dataclass(frozen=True)
class Written:
    """Open answers about one clip, as the engine and as `generate` write them, and tokens per second of both."""

    ours: list[str]
    theirs: list[str]
    ours_per_second: float
    theirs_per_second: float


def writing(scale: Scale, device: str) -> Written:
    """`generate` gets a batch with the clip in every row, because it has no other way."""
    model, (frames, *_) = model_on(scale, device, **NO_CLUES).eval(), clips_of(scale)
    vlm, asked = model.vlm, [_open(number) for number in range(scale.questions)]
    pair = BackbonePair(vlm, vlm.hf, [Clip.of(vlm, frames, device=device)])
    inputs = _one_batch([pair.ordinary_inputs(pair.clips[0], pair.text(one.question)) for one in asked])
    answers: list[str] = []
    tokens_QL = torch.empty(0)

    def ours() -> None:
        with Engine(model, device=device) as engine:
            found = engine.answer([Question(0, one, frames, most_tokens=scale.written) for one in asked])
        answers[:] = [str(one.answer.prediction) for one in found]

    def theirs() -> None:
        nonlocal tokens_QL
        whole = vlm.hf.generate(**inputs, max_new_tokens=scale.written, do_sample=False)
        tokens_QL = whole[:, inputs["input_ids"].shape[1] :]

    with torch.no_grad():
        seconds = seconds_of(ours, device), seconds_of(theirs, device)
    texts = [vlm.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens_QL]
    count = int(tokens_QL.ne(vlm.pad).sum())
    return Written(answers, texts, count / seconds[0], count / seconds[1])


def _open(number: int) -> Example:
    return replace(example(number), options=(), answer=None, clues=None, chain=None)


def _one_batch(inputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of prompts of one length. Positions [3, B, L] have their batch in the middle."""
    dimension = {"position_ids": 1}
    return {name: torch.cat([one[name] for one in inputs], dim=dimension.get(name, 0)) for name in inputs[0]}
