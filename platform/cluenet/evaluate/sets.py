"""Prepared test sets on their way to results: names, addresses, and whether a model may be scored on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from cluenet import fingerprint
from cluenet.decoding import FramePolicy
from cluenet.errors import CheckpointError, DataError
from cluenet.evaluate.batches import BatchResult, Part, batches_of
from cluenet.evaluate.files import RESULTS, SAMPLES
from cluenet.evaluate.kept import Kept
from cluenet.folders import finished, read_manifest
from cluenet.model.checkpoint import model_address, read_frame_policy
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe


@dataclass
class TestSet:
    """One prepared test set and what of it is answered."""

    __test__ = False  # for pytest: not a test

    name: str  # <dataset>-<split>
    prepared: PreparedSet
    folder: Path  # where its results go
    address: str
    batches: list[list[Part]]
    features: str | None = None  # folder of its features by the model's vision tower, where they are made
    results: dict[int, BatchResult] = field(default_factory=dict)  # of batches, by number

    @property
    def finished(self) -> bool:
        there = all((self.folder / name).is_file() for name in (RESULTS, SAMPLES))
        return there and finished(self.folder) and read_manifest(self.folder).get("address") == self.address

    @property
    def complete(self) -> bool:
        return len(self.results) == len(self.batches)

    @cached_property
    def kept(self) -> Kept:
        return Kept(self.folder / "answered", self.address)

    def resume(self) -> int:
        """Takes up what an earlier attempt has answered; returns the number of questions."""
        self.results = self.kept.read(len(self.batches))
        return sum(len(result.samples) for result in self.results.values())

    def add(self, number: int, result: BatchResult) -> None:
        """Raises StorageError on a full disk."""
        self.kept.write(number, result)
        self.results[number] = result


Work: TypeAlias = list[tuple[TestSet, int]]
"""Test sets with numbers of their batches."""


def test_sets(
    recipe: Recipe, model_folder: Path, prepared: Sequence[Path], out: Path, features: Mapping[str, str]
) -> list[TestSet]:
    """What there is to do. Raises DataError when nothing is."""
    if not prepared:
        raise DataError(
            f"{recipe.name}: data.test is empty, so there is nothing to evaluate on. Name a test set there."
        )
    opened_sets = [PreparedSet(folder) for folder in dict.fromkeys(Path(folder).absolute() for folder in prepared)]
    model = model_address(model_folder)
    return [
        TestSet(
            name, one, out / name, fingerprint.evaluation(recipe, model, one.folder.name),
            batches_of(one, recipe.evaluate.questions_per_batch), features.get(str(one.folder)),
        )
        for name, one in zip(_names(opened_sets), opened_sets)
    ]  # fmt: skip


test_sets.__test__ = False  # type: ignore[attr-defined]


def _names(sets: Sequence[PreparedSet]) -> list[str]:
    """<dataset>-<split>; two sets of one dataset and split also carry the start of their address."""
    names = ["{name}-{split}".format(**one.manifest["dataset"]) for one in sets]
    return [name if names.count(name) == 1 else f"{name}-{one.folder.name[:8]}" for name, one in zip(names, sets)]


def check_policy(model_folder: Path, prepared: PreparedSet) -> None:
    """Raises CheckpointError, naming every setting that differs, when model and prepared set disagree about frames."""
    wanted, found = (
        FramePolicy.from_dict(values) for values in (read_frame_policy(model_folder), prepared.manifest["policy"])
    )
    if wanted.fingerprint() == found.fingerprint():
        return
    lines = [
        f"  data.{name}: the model was trained with {json.dumps(a)}, prepared with {json.dumps(b)}"
        for name in ("sampler", "size", "codec")
        if (a := getattr(wanted, name)) != (b := getattr(found, name))
    ]
    detail = "\n".join(lines) or "  the sampler's version has changed"
    raise CheckpointError(
        f"{model_folder}: {prepared.folder} holds other frames than this model was trained on:\n{detail}\n"
        "Prepare the test set with the model's settings (its frame_policy.json), or allow the mismatch on purpose."
    )
