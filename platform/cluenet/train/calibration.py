"""After training, the filter may ask for validation clips to calibrate itself on (`ClueFilter.calibrate`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cluenet.config.train import Stage
from cluenet.contracts import Judged
from cluenet.errors import Problem, RecipeError
from cluenet.features import opened
from cluenet.model.pipeline import ClueNet
from cluenet.model.utilities import exact_utilities
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.train.batches import Clip
from cluenet.train.plan import evenly

Place: TypeAlias = tuple[PreparedSet, str]


def wanted_clips(recipe: Recipe) -> int:
    """How many clips the filter wants; 0: it needs no calibration. Raises RecipeError when there is no validation data."""
    config = recipe.model.clue_filter
    most: int = config.component.calibration_clips(config)
    if most and not recipe.data.validation:
        message = (
            f"with these settings {config.name!r} is calibrated on validation clips after training, and data.validation is "
            "empty. Name a validation set there, or give the filter a fixed threshold"
        )
        raise RecipeError(recipe.name, [Problem("model.clue_filter", message)])
    return most


def calibrate(
    model: ClueNet, recipe: Recipe, validation: Sequence[Path], features: Mapping[Path, Path] | None = None
) -> dict[str, Any]:
    """Calibrate the model's filter in place, where it wants that; returns facts for the model card.

    Clips that chose the best checkpoint come last: scores on them are a little too good. Raises RecipeError.
    """
    most = wanted_clips(recipe)
    if not most or not model.extracts:
        return {}
    clips, seen = _choose([opened(folder, features) for folder in validation], most, recipe.train.validation.max_clips)
    device = "cuda" if recipe.train.resources.gpu and torch.cuda.is_available() else "cpu"
    judged = list(_judged(model.to(device), clips, recipe.train.last_stage, device))
    facts = model.to("cpu").filter.calibrate(judged, seed=recipe.seed)
    return {**facts, "calibration clips that also chose the checkpoint": f"{seen} of {len(clips)}"}


def _choose(sets: Sequence[PreparedSet], most: int, max_clips: int | None) -> tuple[list[Place], int]:
    """(at most `most` clips, how many of them validation saw in training), spread evenly, unseen ones before seen ones."""
    everything = [(prepared, key) for prepared in sets for key in prepared.clip_keys]
    used = set(evenly(len(everything), max_clips))
    unseen = [place for index, place in enumerate(everything) if index not in used]
    seen = [place for index, place in enumerate(everything) if index in used]
    first = [unseen[index] for index in evenly(len(unseen), most)]
    rest = [seen[index] for index in evenly(len(seen), most - len(first))]
    return first + rest, len(rest)


def _judged(model: ClueNet, places: Sequence[Place], stage: Stage, device: str) -> Iterator[Judged]:
    """Gates and exact utilities of the model's own clues, clip by clip; questions without a known answer are left out."""
    clips = [clip for clip in map(_answered, places) if clip[1]]
    for first in range(0, len(clips), stage.clips_per_batch):
        part = clips[first : first + stage.clips_per_batch]
        yield from _judge(model, part, stage, device)


def _answered(place: Place) -> Clip:
    prepared, key = place
    return prepared.clip(key), [example for example in prepared.examples_of(key) if example.answer is not None]


def _judge(model: ClueNet, clips: Sequence[Clip], stage: Stage, device: str) -> Iterator[Judged]:
    batch = model.collate(clips, seed=0, shuffle_options=False).to(device)
    look = model.look(batch)
    own, settings = model.own_evidence(batch, look), stage.filter_loss
    with model.inference():
        found = exact_utilities(model, batch, look[0], own.ids_BQKW, own.present_BQK, kind=settings.utility)
    for b, (_, examples) in enumerate(clips):
        rows = (own.gate_BQK[b], own.present_BQK[b], found[b] > settings.delta)
        yield Judged(*(row[: len(examples)].cpu().numpy() for row in rows))
