"""What an evaluation worker does: load the model once, answer batches of whole clips. Ray-free.

Batches are a pure function of the set, and each is one forward pass on a fixed number of threads: whoever runs it, and
however many workers there are, the numbers are the same to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cluenet.evaluate.results import available_rows
from cluenet.evaluate.samples import Sample, View, sample_of
from cluenet.model.batch import Batch
from cluenet.model.checkpoint import load_model
from cluenet.model.diagnostics import diagnose
from cluenet.model.interventions import inapplicable, intervene
from cluenet.model.utilities import Utility
from cluenet.model.vlm import Grid
from cluenet.plain import rounded
from cluenet.prepared import PreparedSet
from cluenet.records import Example


@dataclass(frozen=True)
class Part:
    """Questions `first` to `last` (not included) of a clip."""

    clip: str
    first: int
    last: int


def plan_batches(sizes: Sequence[tuple[str, int]], questions_per_batch: int) -> Iterator[list[Part]]:
    """Batches of at most `questions_per_batch` questions. `sizes`: clip keys in order, with their numbers of questions.

    Clips stay whole, because their questions share the visual pass; only one with more questions than that is split.
    """
    batch: list[Part] = []
    room = questions_per_batch
    for clip, count in sizes:
        for first in range(0, count, questions_per_batch):
            part = Part(clip, first, min(count, first + questions_per_batch))
            if part.last - part.first > room:
                yield batch
                batch, room = [], questions_per_batch
            batch.append(part)
            room -= part.last - part.first
    if batch:
        yield batch


def batches_of(prepared: PreparedSet, questions_per_batch: int) -> list[list[Part]]:
    sizes = ((clip, len(prepared.examples_of(clip))) for clip in prepared.clip_keys)
    return list(plan_batches([(clip, count) for clip, count in sizes if count], questions_per_batch))


@dataclass(frozen=True)
class BatchResult:
    samples: list[Sample]
    extracts: bool  # the model states clues of its own
    notes: dict[str, str]
    seconds: float
    own_seconds: float  # of these, for the looks at the videos and the answers of row `own`


class BatchEvaluator:
    """One model in one process. Raises CheckpointError when the model folder cannot be loaded."""

    def __init__(
        self, model_folder: Path, *, rows: Sequence[str], threads: int, utility: Utility, delta: float, device: str = "cpu",
        faithfulness: bool = False,
    ):  # fmt: skip
        """utility, delta: what makes a clue useful, with `faithfulness`."""
        torch.set_num_threads(threads)
        self.model = load_model(model_folder, device=device)
        self.rows, self.device, self.faithfulness = tuple(rows), device, faithfulness
        self.utility, self.delta = utility, delta

    def __call__(self, prepared: PreparedSet, parts: Sequence[Part]) -> BatchResult:
        """Raises DataError when the prepared set is damaged, CheckpointError when the model's numbers are not finite."""
        started = time.perf_counter()
        clips = [
            (prepared.frames(part.clip), prepared.examples_of(part.clip)[part.first : part.last]) for part in parts
        ]
        batch = self.model.collate(clips, seed=0, shuffle_options=False)
        moved = batch.to(self.device)
        rows, notes = self._rows(labelled=prepared.manifest["labels"]["clues"] > 0)
        started_own = time.perf_counter()
        look = self.model.look(moved)
        answers = self.model.predict_rows(moved, ["own"], look=look)
        own_seconds = time.perf_counter() - started_own
        answers |= self.model.predict_rows(moved, rows[1:], look=look)  # type: ignore[arg-type]
        per_question = [dict(zip(answers, question)) for question in zip(*answers.values())]
        keys = [part.clip for part in parts for _ in range(part.last - part.first)]
        samples = [
            sample_of(example, key, given, self._true_words(example, grid), self._view(grid))
            for (example, grid), key, given in zip(_with_grids(batch), keys, per_question, strict=True)
        ]
        if self.faithfulness:
            changed = intervene(self.model, moved, look)
            diagnosed = diagnose(self.model, moved, look, utility=self.utility, delta=self.delta)
            for sample, *records in zip(samples, changed, diagnosed, strict=True):
                sample["faithfulness"], sample["diagnostics"] = map(rounded, records)
        return BatchResult(samples, self.model.extracts, notes, time.perf_counter() - started, own_seconds)

    def _rows(self, *, labelled: bool) -> tuple[list[str], dict[str, str]]:
        """Those that can be measured, and what cannot."""
        wanted = {*self.rows, "oracle"} if self.faithfulness else self.rows
        rows, notes = available_rows(wanted, reads_clues=self.model.slots > 0, labelled=labelled)
        if self.faithfulness:
            notes |= {f"faithfulness.{name}": why for name, why in inapplicable(self.model).items()}
        return rows, notes

    def _true_words(self, example: Example, grid: Grid) -> list[tuple[str, ...]]:
        """Labelled clues as the model would have to say them."""
        if not self.model.slots:
            return []
        vocabulary, start = self.model.collator.vocabulary, example.video.start_seconds
        return [vocabulary.decode(vocabulary.encode(clue.shifted(-start), grid)) for clue in example.clues or ()]

    def _view(self, grid: Grid) -> View:
        return View((grid.blocks, grid.rows, grid.cols), grid.seconds, self.model.reasoner.sees_video)


def _with_grids(batch: Batch) -> list[tuple[Example, Grid]]:
    return [(example, grid) for grid, clip in zip(batch.grids, batch.clips) for example in clip]


@lru_cache(maxsize=8)
def opened(folder: str) -> PreparedSet:
    """A prepared set stays open in a worker from batch to batch."""
    return PreparedSet(folder)


def parts_from(value: Sequence[Sequence[Any]]) -> list[Part]:
    """Inverse of `[astuple(part), ...]` after JSON."""
    return [Part(*item) for item in value]
