"""Which model and which questions: those of a run's evaluation, asked in the same way, a random part of its clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cluenet.errors import CheckpointError, DataError, suggestion
from cluenet.evaluate.batches import Asking, Part, plan_batches
from cluenet.folders import finished, read_manifest
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.records import content_hash

QUESTIONS_PER_BATCH = 12


@dataclass(frozen=True)
class Source:
    """One evaluated test set of a run."""

    run: Path
    name: str
    model: Path
    model_address: str
    prepared: PreparedSet
    asking: Asking


def source_of(run: Path, name: str | None) -> Source:
    """The test set with this name, by default the first one, and the model that was evaluated on it.

    Raises DataError when there is no such set, CheckpointError when the model is not there, StorageError when the prepared
    set is not.
    """
    folder = _evaluated(run, name)
    manifest = read_manifest(folder)
    own = run / "model"
    model = own if (own / "model_config.json").is_file() else Path(manifest["model"])
    if not model.is_dir():
        raise CheckpointError(
            f"{folder}: its model {model} is not there any more. Train it again, or evaluate another one."
        )
    return Source(
        run, folder.name, model, manifest["model_address"], PreparedSet(manifest["prepared"]), _asking(manifest)
    )


def _evaluated(run: Path, name: str | None) -> Path:
    sets = {path.name: path for path in sorted((run / "evaluation").glob("*")) if finished(path)}
    if not sets:
        raise DataError(
            f"{run}: no evaluated test set in it, so there are no questions to look at. Give the folder of a finished run, such as "
            "runs/quickstart-..., or evaluate the model first: cluenet evaluate RECIPE --model MODEL --out RUN"
        )
    if name is not None and name not in sets:
        raise DataError(f"--set {name}: {run} was not evaluated on it. {suggestion(name, sets, label='Evaluated')}")
    return sets[name] if name else next(iter(sets.values()))


def _asking(manifest: dict[str, Any]) -> Asking:
    """As the evaluation asked, on this machine, with one order of the options and the whole video in view; what it did not record
    is as by default."""
    usual = asdict(Asking.of(Recipe.from_dict({})))
    values = {name: manifest.get(name, value) for name, value in usual.items()}
    device = values["device"] if torch.cuda.is_available() else "cpu"
    changed = {"rows": ("own",), "device": device, "shuffles": min(1, values["shuffles"]), "pruning": {"name": "none"}}
    return Asking(**{**values, **changed})


def chosen(prepared: PreparedSet, questions: int, seed: int) -> list[list[Part]]:
    """Batches of whole clips in a random order that depends on `seed` and the clips alone; the last clip may be cut."""
    sizes, left = [], questions
    for clip in sorted(prepared.clip_keys, key=lambda key: content_hash(seed, key)):
        if count := min(left, prepared.num_questions_of(clip)):
            sizes.append((clip, count))
            left -= count
    return list(plan_batches(_in_order(sizes), QUESTIONS_PER_BATCH))


def _in_order(sizes: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Clips of a batch lie near each other on disk."""
    return sorted(sizes)
