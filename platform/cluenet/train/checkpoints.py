"""Checkpoints of a stage: whole or not there, the newest ones and the best one kept, found again after any crash.

The folder of a stage:

    <run>/<stage>/
        checkpoint-000200/
            model.safetensors    whole weights of the ClueNet, whatever the strategy: all, or those that are trained
            optimizer.pt         whole states of the optimisers, the same whatever the strategy and the number of workers
            trainer_state.json   `TrainerState`; everything random follows from seed and step, so no generator is stored
        state.json               which checkpoint is the newest and which the best, for people
        manifest.json            written last: the stage is finished, `best` names the checkpoint to go on from
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import Tensor, nn

from cluenet.errors import CheckpointError, StorageError
from cluenet.folders import atomic_write_json, building, read_manifest
from cluenet.model.tuning import saved_names
from cluenet.train.strategies.base import OptimizerState, Strategy

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.pt", "trainer_state.json"
FORMAT = 1


@dataclass
class TrainerState:
    """Where a stage is. `step` optimiser steps are done, so the plan goes on with step number `step`."""

    address: str  # of the stage, by `cluenet.fingerprint`
    stage: str
    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    validations_without_better: int = 0
    seconds: float = 0.0  # of training, over all attempts
    labels: dict[str, int] = field(default_factory=dict)  # labels used so far, by loss term
    flops_per_step: int | None = None  # of all workers, counted with the first micro-batch (`train.flops`)
    format: int = FORMAT


def name_of(step: int) -> str:
    return f"checkpoint-{step:06d}"


def steps_of(stage_folder: Path) -> list[int]:
    """Steps with a checkpoint, ascending. An unfinished one has another name."""
    found = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in stage_folder.glob("checkpoint-*"))
    return sorted(int(match[1]) for match in found if match)


@dataclass(frozen=True)
class Layout:
    """What `model.safetensors` holds of a model: names of its state dict, and where tied weights are found."""

    shapes: dict[str, torch.Size]
    aliases: dict[str, str]  # another name of the same weights -> the one in `shapes`


def layout_of(model: nn.Module) -> Layout:
    """Of a model that is whole. Tied weights are held once, under the name that comes first in the alphabet."""
    needed = saved_names(model)
    entries = {name: value for name, value in model.state_dict().items() if needed is None or name in needed}
    places = {name: (value.data_ptr(), value.shape) if value.numel() else name for name, value in entries.items()}
    kept: dict[Any, str] = {}
    for name in sorted(entries):
        kept.setdefault(places[name], name)
    aliases = {name: kept[place] for name, place in places.items() if kept[place] != name}
    return Layout({name: entries[name].shape for name in kept.values()}, aliases)


def save(
    stage_folder: Path, state: TrainerState, layout: Layout, weights: Mapping[str, Tensor], optimizers: OptimizerState, *,
    keep: int,
) -> Path:  # fmt: skip
    """Write `checkpoint-<step>`, then delete all but the `keep` newest and the best.

    Raises StorageError on a full disk, CheckpointError when a weight is missing, of another shape or not finite: such a
    checkpoint would be found again and gone on from.
    """
    folder = stage_folder / name_of(state.step)
    _check(folder, layout, weights)
    with building(folder) as part, _full_disk(folder):
        whole = {name: value.contiguous() for name, value in weights.items()}
        save_file(whole, str(part / WEIGHTS), layout.aliases or None)
        with (part / OPTIMIZER).open("wb") as file:
            torch.save(optimizers, file)
        atomic_write_json(part / STATE, asdict(state))
    best = None if state.best_step is None else name_of(state.best_step)
    summary = {"address": state.address, "newest": folder.name, "best": best, "best_value": state.best_value}
    atomic_write_json(stage_folder / "state.json", summary)
    _prune(stage_folder, keep=keep, best=state.best_step)
    return folder


def _check(folder: Path, layout: Layout, weights: Mapping[str, Tensor]) -> None:
    for name, shape in layout.shapes.items():
        value = weights.get(name)
        if value is None or value.shape != shape:
            what = "missing" if value is None else f"of shape {tuple(value.shape)}, not {tuple(shape)}"
        elif not value.isfinite().all():
            what = f"not finite in {int((~value.isfinite()).sum())} of {value.numel()} places"
        else:
            continue
        raise CheckpointError(
            f"{folder}: not saved, because the weight {name} is {what}. The checkpoint before it is as it was. Weights that are "
            "not finite come from a learning rate that is too high; missing ones are a bug: please report it."
        )


def newest(stage_folder: Path, address: str) -> tuple[Path, TrainerState] | None:
    """The checkpoint to resume from. Raises CheckpointError when it is damaged or another recipe's."""
    steps = steps_of(stage_folder)
    if not steps:
        return None
    folder = stage_folder / name_of(steps[-1])
    try:
        state = TrainerState(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / STATE}: cannot be read: {error}. {_delete(folder)}") from None
    if state.format != FORMAT:
        raise CheckpointError(f"{folder}: format {state.format}, this version reads {FORMAT}. {_delete(stage_folder)}")
    if state.address != address:
        raise CheckpointError(
            f"{folder}: made by another recipe (address {state.address}, now {address}). Use another run folder."
        )
    return folder, state


def load_weights(model: nn.Module, file: Path, *, with_filter: bool = True) -> None:
    """Exactly the weights of `file`; without the clue filter's, those stay what they are in the model.

    Raises CheckpointError when it is missing, damaged or of another model.
    """
    try:
        _load(model, file, with_filter=with_filter)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file. {_delete(file.parent)}") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: damaged: {error}. {_delete(file.parent)}") from None
    except RuntimeError as error:
        raise CheckpointError(f"{file}: does not fit the model of the recipe: {error}") from None


def _load(model: nn.Module, file: Path, *, with_filter: bool) -> None:
    """Another filter's weights in `file` may have other names and shapes."""
    target = model if with_filter else copy.copy(model)
    if not with_filter:
        target._modules = {name: part for name, part in model._modules.items() if name != "filter"}
    missing, unexpected = load_model(target, str(file), strict=False)
    needed = saved_names(model)
    foreign = [name for name in missing if needed is None or name in needed]
    foreign += [name for name in unexpected if with_filter or not name.startswith("filter.")]
    if foreign:
        raise RuntimeError(f"missing or not of this model: {', '.join(sorted(foreign))}")


def load_optimizers(strategy: Strategy, folder: Path) -> None:
    """Whatever strategy and however many workers wrote them. Raises CheckpointError when the file is missing, damaged or of
    another optimiser."""
    try:
        strategy.load_optimizer_state(torch.load(folder / OPTIMIZER, weights_only=True, mmap=True))
    except Exception as error:  # torch.load raises nearly anything on damage
        raise CheckpointError(f"{folder / OPTIMIZER}: cannot be loaded: {error}. {_delete(folder)}") from error


def best_of(stage_folder: Path) -> Path:
    """The checkpoint that a finished stage hands on. Raises StorageError when it is not finished."""
    return stage_folder / str(read_manifest(stage_folder)["best"])


def sweep(stage_folder: Path) -> None:
    """Delete what a killed run left half written or half deleted. Only while no other process writes there."""
    for path in stage_folder.glob(".checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def _prune(stage_folder: Path, *, keep: int, best: int | None) -> None:
    for step in steps_of(stage_folder)[:-keep]:
        if step != best:
            folder = stage_folder / name_of(step)
            trash = folder.with_name(f".{folder.name}.part")
            folder.rename(trash)  # a half deleted folder must not look like a checkpoint
            shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """safetensors and torch hide a full disk in errors of their own."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if "No space left" not in str(error) and "ENOSPC" not in str(error) and shutil.disk_usage(folder.parent).free:
            raise
        raise StorageError(
            f"{folder}: the disk is full. Free some space, or set `runs=` to another disk, and run the same command again to "
            "resume."
        ) from error


def _delete(folder: Path) -> str:
    return f"Delete {folder} and run the same command again; it resumes from what is left."
