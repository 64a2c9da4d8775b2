"""Whether a plan fits an accelerator; if it does not, which part is largest and which settings would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluenet.config.tuning import FullTuning
from cluenet.errors import Problem, RecipeError
from cluenet.estimate.accelerators import GB, Accelerator
from cluenet.estimate.data import frames_of
from cluenet.estimate.estimate import STAGES, Estimate, stage_costs
from cluenet.estimate.unloaded import unloaded
from cluenet.recipe import Recipe, merge


@dataclass(frozen=True)
class Remedy:
    """`settings`: overrides for the command line. total_bytes: of the stage that needs most with them."""

    settings: str
    total_bytes: float


def fits(found: Estimate, accelerator: Accelerator, *, share: float = 1.0) -> bool:
    """`share`: of the accelerator that a worker has (`train.resources.gpu`)."""
    return _largest_bytes(found) <= share * accelerator.memory_bytes


def remedies(recipe: Recipe, found: Estimate, room: float) -> list[Remedy]:
    """Settings that lower the peak: first those that leave the result as it is, one after the other and on top of each other
    until they fit into `room` bytes; then, beside them, those that change it."""
    tried: list[Remedy] = []
    so_far: dict[str, Any] = {}
    for change in _changes(recipe):
        remedy = _remedy(recipe, found, merge(so_far, change))
        if remedy and remedy.total_bytes < (tried[-1].total_bytes if tried else _largest_bytes(found)):
            tried.append(remedy)
            so_far = merge(so_far, change)
        if remedy and remedy.total_bytes <= room:
            break
    others = filter(None, (_remedy(recipe, found, change) for change in _other_changes(recipe)))
    return [*tried, *(other for other in others if other.total_bytes < _largest_bytes(found))]


def _changes(recipe: Recipe) -> Iterator[dict[str, Any]]:
    train = recipe.train
    yield {"train": {"gradient_checkpointing": True}}
    counts = {name: _most_accumulation(recipe, name) for name in STAGES}
    yield {"train": {name: {"accumulate": count} for name, count in counts.items() if count}}
    if train.min_workers > 1:
        yield {"train": {"strategy": {"name": "deepspeed", "stage": 3}}}
        yield {"train": {"strategy": {"name": "deepspeed", "stage": 3, "offload_optimizer": True}}}


def _other_changes(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Half the bytes in matrix products; adapters, on weights of half precision where the backbone can be loaded so."""
    if recipe.train.precision == "fp32":
        yield {"train": {"gradient_checkpointing": True, "precision": "bf16"}}
    if isinstance(recipe.train.tuning, FullTuning):
        loads_in_half = recipe.model.backbone.build().loading().get("dtype") == "float32"
        half: dict[str, Any] = {"model": {"backbone": {"dtype": "bfloat16"}}} if loads_in_half else {}
        yield {"train": {"gradient_checkpointing": True, "tuning": {"name": "lora"}}, **half}


def _most_accumulation(recipe: Recipe, name: str) -> int | None:
    """One clip at a time, or two where the counterfactual loss needs another video's clues."""
    stage = getattr(recipe.train, name)
    least = 2 if stage.losses.counterfactual else 1
    most = stage.clips_per_batch // recipe.train.max_workers // least
    return most if stage.steps and most > stage.accumulate else None


def _remedy(recipe: Recipe, found: Estimate, values: Mapping[str, Any]) -> Remedy | None:
    """The recipe with other settings; None where they do not go together with the rest."""
    try:
        changed = Recipe.from_dict(merge(recipe.to_dict(), values))
        base, frames = unloaded(changed, found.data.examples), frames_of(changed.data)
    except RecipeError:
        return None
    peak = max(stage.total_bytes for stage in stage_costs(changed, base, found.data, frames))
    return Remedy(" ".join(_overrides(values)), peak)


def _largest_bytes(found: Estimate) -> float:
    return 0.0 if found.largest is None else found.largest.total_bytes


def _overrides(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """As they are written on a command line."""
    for key, value in values.items():
        here = f"{path}{key}"
        if isinstance(value, Mapping) and "name" not in value:
            yield from _overrides(value, f"{here}.")
        elif isinstance(value, Mapping):
            inside = ", ".join(f"{name}: {str(v).lower()}" for name, v in value.items())
            yield f"{here}='{{{inside}}}'" if len(value) > 1 else f"{here}={value['name']}"
        else:
            yield f"{here}={str(value).lower()}"


def require_fit(recipe: Recipe, found: Estimate, accelerator: Accelerator) -> None:
    """Raises RecipeError for a stage that is too large, unless `train.allow_oversize` says to go on."""
    share = min(1.0, recipe.train.resources.gpu)
    if not recipe.train.allow_oversize and not fits(found, accelerator, share=share):
        raise RecipeError(recipe.name, [Problem("train", advice(recipe, found, accelerator, share=share))])


def advice(recipe: Recipe, found: Estimate, accelerator: Accelerator, *, share: float = 1.0) -> str:
    """Of a plan that does not fit: what is largest, and what to change."""
    stage, room = found.largest, share * accelerator.memory_bytes
    assert stage is not None
    part = max(stage.memory, key=lambda name: stage.memory[name])
    lines = [
        f"{stage.name} needs about {stage.total_bytes / GB:.1f} GB on each accelerator, but {accelerator.name} has "
        f"{room / GB:.0f} GB. Most of it: {part}, {stage.memory[part] / GB:.1f} GB. What would help:"
    ]
    for remedy in remedies(recipe, found, room):
        verdict = "fits" if remedy.total_bytes <= room else "does not fit yet"
        lines.append(f"    {remedy.settings}: {remedy.total_bytes / GB:.1f} GB, {verdict}")
    lines.append(
        "    fewer or smaller frames (data.sampler, data.size), a smaller backbone, or an accelerator with more memory"
    )
    lines.append("  The figure is an estimate (docs/plan.md); train.allow_oversize=true goes on in spite of it")
    return "\n".join(lines)
