"""What a worker of the step `utilities` does: load the frozen model once, measure the clues of whole clips, write parts. Ray-free.

Parts are a pure function of the prepared sets and the recipe, whoever makes them; one that is there is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cluenet.features import opened
from cluenet.model.build import build_model
from cluenet.model.pipeline import ClueNet
from cluenet.model.recorded import measure
from cluenet.prepared import PreparedSet, read_account
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.batches import Clip
from cluenet.train.plan import seed_of
from cluenet.train.sharing import STAGE1, brings_filter
from cluenet.train.utility_store import Asked, rows_of, write_part

BATCHES_PER_PART = 8
COUNTS = ("questions", "recorded", "without_answer", "stated", "useful", "distractors")
Account: TypeAlias = dict[str, Any]
"""Of a part: `address`, and a number for each of COUNTS."""


@dataclass(frozen=True)
class UtilityJob:
    """All that a worker needs, as plain values. Paths are absolute."""

    recipe: dict[str, Any]  # Recipe.to_dict()
    folder: str
    base: str  # backbone in Hugging Face layout
    weights: str | None  # of the frozen model; None: the base's
    address: str
    features: dict[str, str] = field(default_factory=dict)  # prepared set -> folder of its features, where it has some


@dataclass(frozen=True)
class Part:
    """Whole clips of one prepared set, in batches: a file of the folder."""

    name: str
    set: str  # folder of the prepared set
    batches: tuple[tuple[str, ...], ...]  # clip keys


def parts_of(sets: Sequence[PreparedSet], most_questions: int) -> Iterator[Part]:
    """Clips stay whole, since their questions share the visual pass and lend each other distractors."""
    number = 0
    for prepared in sets:
        batches = list(_batches_of(prepared, most_questions))
        for first in range(0, len(batches), BATCHES_PER_PART):
            chosen = tuple(map(tuple, batches[first : first + BATCHES_PER_PART]))
            yield Part(f"part-{number:05d}.parquet", str(prepared.folder), chosen)
            number += 1


def _batches_of(prepared: PreparedSet, most_questions: int) -> Iterator[list[str]]:
    """Clip keys; a batch has at most `most_questions` questions, or a single clip with more."""
    batch: list[str] = []
    room = most_questions
    for key in prepared.clip_keys:
        count = prepared.num_questions_of(key)
        if batch and count > room:
            yield batch
            batch, room = [], most_questions
        batch.append(key)
        room -= count
    if batch:
        yield batch


class PartRecorder:
    """Makes parts; the model is loaded with the first one that is not there yet."""

    def __init__(self, job: UtilityJob):
        self._job, self._recipe = job, Recipe.from_dict(job.recipe)  # loads the plug-ins
        resources = self._recipe.train.resources
        self._device = "cuda" if resources.gpu else "cpu"
        torch.set_num_threads(max(1, int(resources.cpu)))

    @cached_property
    def model(self) -> ClueNet:
        settings = self._recipe
        model = build_model(settings.model, self._job.base, seed=settings.seed, train=settings.train)
        if self._job.weights is not None:
            with_filter = brings_filter(self._recipe, STAGE1)
            checkpoints.load_weights(model, Path(self._job.weights), with_filter=with_filter)
        return model.to(self._device)

    def account(self, part: Part) -> Account:
        """The account of the part, which is made unless it is there. Raises StorageError, DataError, CheckpointError."""
        path = Path(self._job.folder) / part.name
        known = read_account(path)
        if known is not None and known["address"] == self._job.address:
            return known
        prepared, rows = opened(part.set, self._job.features), []
        account: Account = {"address": self._job.address, **dict.fromkeys(COUNTS, 0)}
        for keys in part.batches:
            asked = [self._asked(prepared, key) for key in keys]
            answers = [example.answer for key in keys for example in prepared.examples_of(key)]
            account["questions"] += len(answers)
            account["without_answer"] += answers.count(None)
            rows += self._rows(prepared, [clip for clip in asked if clip])
        self._count(account, rows)
        write_part(path, rows, account)
        return account

    def _asked(self, prepared: PreparedSet, key: str) -> list[Asked]:
        """Questions with a known answer."""
        return [
            Asked(prepared.folder.name, key, number, example)
            for number, example in enumerate(prepared.examples_of(key))
            if example.answer is not None
        ]

    def _rows(self, prepared: PreparedSet, asked: Sequence[Sequence[Asked]]) -> list[dict[str, Any]]:
        if not asked:
            return []
        clips: list[Clip] = [(prepared.clip(clip[0].clip), [one.example for one in clip]) for clip in asked]
        batch = self.model.collate(clips, seed=0, shuffle_options=False).to(self._device)
        seed = seed_of(self._recipe.seed, "utilities", prepared.folder.name, asked[0][0].clip)
        found = measure(self.model, batch, self._recipe.train.stage2.filter_loss, seed=seed)
        return list(rows_of(self.model, asked, found))

    def _count(self, account: Account, rows: Sequence[dict[str, Any]]) -> None:
        clues = [clue for row in rows for clue in row["clues"]]
        stated = [clue["utility"] for clue in clues if not clue["distractor"]]
        delta = self._recipe.train.stage2.filter_loss.delta
        account |= {
            "recorded": len(rows), "stated": len(stated), "useful": sum(value > delta for value in stated),
            "distractors": len(clues) - len(stated),
        }  # fmt: skip
