"""`estimate(recipe)`: everything that `cluenet plan` says of a run's cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluenet.config.train import Stage
from cluenet.config.tuning import QloraTuning
from cluenet.estimate import memory, parameters
from cluenet.estimate.accelerators import Accelerator
from cluenet.estimate.batches import micro_batch
from cluenet.estimate.clue_parts import clue_parts_cost
from cluenet.estimate.compute import step_operations
from cluenet.estimate.data import DataBytes, DataSize, data_bytes, data_size, frames_of
from cluenet.estimate.parameters import Part
from cluenet.estimate.passes import work_of
from cluenet.estimate.unloaded import Unloaded, unloaded
from cluenet.recipe import Recipe
from cluenet.records import Frames

STAGES = ("stage1", "stage2")


@dataclass(frozen=True)
class StageCost:
    """Of one stage that has steps. Bytes are of one worker at its peak; tokens and operations of one step of all workers."""

    name: str
    steps: int
    clips_per_micro_batch: int
    memory: dict[str, float]
    activations: dict[bool, int]  # without gradient checkpointing, and with
    visual_tokens: int
    text_tokens: int
    operations: float

    @property
    def total_bytes(self) -> float:
        return sum(self.memory.values())

    def hours(self, accelerator: Accelerator, *, workers: int, mfu: float) -> float:
        """Of training alone, all workers at a share `mfu` of the accelerator's published speed."""
        return accelerator.seconds(self.steps * self.operations, mfu=mfu) / workers / 3600


@dataclass(frozen=True)
class Estimate:
    parts: dict[str, Part]
    stages: tuple[StageCost, ...]
    workers: int
    frames: tuple[int, int, int]  # of a clip: how many, height, width
    visual_tokens: int  # of a clip
    data: DataSize
    bytes: DataBytes
    notes: tuple[str, ...]

    @property
    def largest(self) -> StageCost | None:
        """The stage that needs most memory."""
        return max(self.stages, key=lambda stage: stage.total_bytes, default=None)


def estimate(recipe: Recipe, *, clips: int | None = None, questions: int | None = None) -> Estimate:
    """`clips`, `questions`: of the training data, where that is not on this machine.

    Raises DataError for data that cannot be read, CheckpointError when the backbone's config.json is not here, RecipeError
    when the tuning does not suit the backbone.
    """
    size = data_size(recipe, clips=clips, questions=questions)
    base, frames = unloaded(recipe, size.examples), frames_of(recipe.data)
    stages, vlm = tuple(stage_costs(recipe, base, size, frames)), base.model.vlm
    grid = vlm.grid_of(frames)
    parts = parameters.parts_of(base.model, recipe.train)
    needed = data_bytes(size, frames, feature_bytes=vlm.tower_values(grid) * vlm.embeddings_VD.itemsize)
    count, height, width, _ = frames.frames_THWC.shape
    notes = [*base.notes, *_notes(size, recipe)]
    if clips is not None and not size.unread:
        notes.append("--clips and --questions are not used: all of the data is here.")
    return Estimate(
        parts, stages, recipe.train.min_workers, (count, height, width), grid.tokens, size, needed, tuple(notes)
    )


def stage_costs(recipe: Recipe, base: Unloaded, size: DataSize, frames: Frames) -> Iterator[StageCost]:
    for name in STAGES:
        stage: Stage = getattr(recipe.train, name)
        if stage.steps:
            yield _stage_cost(name, stage, recipe, base, size, frames)


def _stage_cost(
    name: str, stage: Stage, recipe: Recipe, base: Unloaded, size: DataSize, frames: Frames
) -> StageCost:  # fmt: skip
    train, model, sizes = recipe.train, base.model, base.sizes
    clips, count = train.clips_per_micro_batch(stage), train.micro_batches(stage)
    batch = micro_batch(model, stage, frames, size.examples, clips=clips)
    work, modes = work_of(model, batch, stage, sizes), memory.modes_of(model, train)
    work = work.after_features() if recipe.data.features else work
    clue_parts = clue_parts_cost(model, batch, stage)
    by_part = memory.memory_of(model, train, stage, work, sizes, modes, clue_bytes=clue_parts.saved_bytes)
    kept = {
        again: memory.activation_bytes(work, sizes, modes.checkpointed(again)) + clue_parts.saved_bytes
        for again in (False, True)
    }
    operations = count * (step_operations(work, sizes, modes) + clue_parts.operations)
    return StageCost(
        name, stage.steps, clips, by_part, kept, count * work.visual_tokens, count * work.text_tokens, operations
    )  # fmt: skip


def _notes(size: DataSize, recipe: Recipe) -> Iterator[str]:
    train, loading = recipe.train, recipe.model.backbone.build().loading()
    if not size.examples:
        yield "No training question can be read here, so questions of 11 words with four options are taken."
    yield from (f"Not read: {reason}" for reason in size.unread)
    if train.precision == "fp32" and loading.get("dtype", "float32") == "float32":
        yield "train.precision is fp32: hours are those of bf16, which fp32 is several times slower than."
    if loading.get("attention") == "eager":
        yield "attention: eager keeps the attention of every head, which is not counted: it needs more memory than this."
    if isinstance(train.tuning, QloraTuning):
        yield "qlora: frozen weights are counted in 4 bits, without the matrix that is expanded at a time."
