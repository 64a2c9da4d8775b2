"""What an evaluation worker does: load the model once, answer batches of whole clips. Ray-free.

Batches are a pure function of the set, and each is one forward pass on a fixed number of threads: whoever runs it, and
however many workers there are, the numbers are the same to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cluenet.config.pruning import pruning_of
from cluenet.evaluate.option_order import Order, shown_order, stored_answer, stored_order, stored_record
from cluenet.evaluate.results import available_rows
from cluenet.evaluate.samples import Sample, View, sample_of, verdict
from cluenet.features import EncodedSet
from cluenet.model.batch import Batch
from cluenet.model.checkpoint import load_model
from cluenet.model.diagnostics import diagnose
from cluenet.model.evidence import ClueRow
from cluenet.model.generate import Writing
from cluenet.model.grid import Grid
from cluenet.model.interventions import inapplicable, intervene
from cluenet.model.pipeline import Look
from cluenet.model.utilities import Utility
from cluenet.model.vision import EncodedClip
from cluenet.plain import rounded
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.records import Answer, Example, Frames


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
    sizes = ((clip, prepared.num_questions_of(clip)) for clip in prepared.clip_keys)
    return list(plan_batches([(clip, count) for clip, count in sizes if count], questions_per_batch))


@dataclass(frozen=True)
class Asking:
    """How questions are asked, and what is measured on the way."""

    rows: tuple[str, ...]
    threads: int
    device: str
    mode: str
    max_new_tokens: int
    shuffles: int
    seed: int
    faithfulness: bool
    utility: Utility  # this and the next: what makes a clue useful, with `faithfulness`
    delta: float
    pruning: dict[str, Any]  # `evaluate.pruning`, as plain values

    @classmethod
    def of(cls, recipe: Recipe) -> Asking:
        """Evaluation workers get a GPU where training workers do."""
        section, useful = recipe.evaluate, recipe.train.last_stage.filter_loss
        return cls(
            rows=section.rows, threads=section.threads, device="cuda" if recipe.train.resources.gpu else "cpu",
            mode=section.mode, max_new_tokens=section.max_new_tokens, shuffles=section.shuffles, seed=section.seed,
            faithfulness=section.faithfulness, utility=useful.utility, delta=useful.delta,
            pruning=section.pruning.model_dump(mode="json"),
        )  # fmt: skip

    @property
    def writing(self) -> Writing:
        return Writing(every=self.mode == "generate", most_tokens=self.max_new_tokens)

    def order(self, example: Example, shuffle: int) -> Order:
        """In which the example's options are shown."""
        return shown_order(example, seed=self.seed, shuffle=shuffle) if self.shuffles else stored_order(example)


@dataclass(frozen=True)
class BatchResult:
    samples: list[Sample]
    extracts: bool  # the model states clues of its own
    notes: dict[str, str]
    seconds: float
    own_seconds: float  # of these, for the looks at the videos and the answers of row `own`


@dataclass(frozen=True)
class Shown:
    """A batch whose options stand in one of their orders."""

    batch: Batch
    orders: list[Order]  # of every question

    def stored(self, answers: Mapping[ClueRow, Sequence[Answer]]) -> list[dict[str, Answer]]:
        """By question, then by row."""
        return [
            {row: stored_answer(given[n], shown, order) for row, given in answers.items()}
            for n, (shown, order) in enumerate(zip(self.batch.examples, self.orders, strict=True))
        ]


class BatchEvaluator:
    """One model in one process. Raises CheckpointError when the model folder cannot be loaded, CluenetError when the model
    cannot be pruned as it is asked to be."""

    def __init__(self, model_folder: Path, asking: Asking):
        torch.set_num_threads(asking.threads)
        self.asking = asking
        self.model = load_model(model_folder, device=asking.device).prune(pruning_of(asking.pruning))

    def __call__(self, prepared: PreparedSet, parts: Sequence[Part]) -> BatchResult:
        """Raises DataError when the prepared set is damaged, CheckpointError when the model's numbers are not finite."""
        started = time.perf_counter()
        examples = [prepared.examples_of(part.clip, range(part.first, part.last)) for part in parts]
        shown = self._first([prepared.clip(part.clip) for part in parts], examples)
        rows, notes = self._rows(labelled=prepared.manifest["labels"]["clues"] > 0)
        started_own = time.perf_counter()
        look = self.model.look(shown.batch)
        answers = self._answers(shown, rows[:1], look)
        own_seconds = time.perf_counter() - started_own
        answers |= self._answers(shown, rows[1:], look)
        samples = self._samples(parts, examples, shown, shown.stored(answers))
        for number in range(1, self.asking.shuffles):
            self._add_shuffle(samples, examples, self._reordered(shown.batch, examples, number), look)
        if self.asking.faithfulness:
            self._add_faithfulness(samples, shown, look)
        return BatchResult(samples, self.model.extracts, notes, time.perf_counter() - started, own_seconds)

    def asked(self, prepared: PreparedSet, parts: Sequence[Part]) -> tuple[list[Sample], Shown, Look]:
        """The samples with the model's own answers alone, for those who want to see more of what the model saw."""
        examples = [prepared.examples_of(part.clip, range(part.first, part.last)) for part in parts]
        shown = self._first([prepared.clip(part.clip) for part in parts], examples)
        look = self.model.look(shown.batch)
        answers = self._answers(shown, ["own"], look)
        return self._samples(parts, examples, shown, shown.stored(answers)), shown, look

    # ------------------------------------------------------------------------------------ option orders
    def _first(self, clips: Sequence[Frames | EncodedClip], examples: Sequence[Sequence[Example]]) -> Shown:
        shown, orders = self._in_order(examples, 0)
        batch = self.model.collate(list(zip(clips, shown)), seed=0, shuffle_options=False)
        return Shown(batch.to(self.asking.device), orders)

    def _reordered(self, batch: Batch, examples: Sequence[Sequence[Example]], shuffle: int) -> Shown:
        """The same questions about the same clips, which are not looked at again."""
        shown, orders = self._in_order(examples, shuffle)
        return Shown(self.model.collator.questions(batch.prefix, batch.grids, shown).to(self.asking.device), orders)

    def _in_order(self, examples: Sequence[Sequence[Example]], shuffle: int) -> tuple[list[list[Example]], list[Order]]:
        orders = [[self.asking.order(example, shuffle) for example in row] for row in examples]
        shown = [
            [example.with_options_in(order) for example, order in zip(row, mine)] for row, mine in zip(examples, orders)
        ]
        return shown, [order for row in orders for order in row]

    # ------------------------------------------------------------------------------------------ answers
    def _answers(self, shown: Shown, rows: Sequence[str], look: Look) -> dict[ClueRow, list[Answer]]:
        return self.model.predict_rows(shown.batch, rows, look=look, writing=self.asking.writing)  # type: ignore[arg-type]

    def _samples(
        self, parts: Sequence[Part], examples: Sequence[Sequence[Example]], shown: Shown, answers: Sequence[dict[str, Answer]]
    ) -> list[Sample]:  # fmt: skip
        asked = [(part.clip, grid, one) for part, grid, row in zip(parts, shown.batch.grids, examples) for one in row]
        return [
            sample_of(example, clip, order, given, self._true_words(example, grid), self._view(grid))
            for (clip, grid, example), order, given in zip(asked, shown.orders, answers, strict=True)
        ]

    def _add_shuffle(
        self, samples: Sequence[Sample], examples: Sequence[Sequence[Example]], shown: Shown, look: Look
    ) -> None:
        given = shown.stored(self._answers(shown, ["own"], look))
        asked = [example for row in examples for example in row]
        for sample, example, answers in zip(samples, asked, given, strict=True):
            sample.setdefault("shuffles", []).append(rounded(verdict(example, answers["own"])))

    def _add_faithfulness(self, samples: Sequence[Sample], shown: Shown, look: Look) -> None:
        changed = intervene(self.model, shown.batch, look)
        diagnosed = diagnose(self.model, shown.batch, look, utility=self.asking.utility, delta=self.asking.delta)
        for sample, order, *records in zip(samples, shown.orders, changed, diagnosed, strict=True):
            sample["faithfulness"], sample["diagnostics"] = (rounded(stored_record(one, order)) for one in records)

    def _rows(self, *, labelled: bool) -> tuple[list[str], dict[str, str]]:
        """Those that can be measured, and what cannot."""
        tested = self.asking.faithfulness
        wanted = {*self.asking.rows, "oracle"} if tested else self.asking.rows
        rows, notes = available_rows(wanted, reads_clues=self.model.slots > 0, labelled=labelled)
        if tested:
            notes |= {f"faithfulness.{name}": why for name, why in inapplicable(self.model).items()}
        return rows, notes

    def _true_words(self, example: Example, grid: Grid) -> list[tuple[str, ...]]:
        """Labelled clues as the model would have to say them."""
        if not self.model.slots:
            return []
        vocabulary, start = self.model.collator.vocabulary, example.video.start_seconds
        return [vocabulary.decode(vocabulary.encode(clue.shifted(-start), grid)) for clue in example.clues or ()]

    def _view(self, grid: Grid) -> View:
        return View((grid.blocks, grid.rows, grid.cols), grid.seconds, self.model.tokens_seen(grid))


@lru_cache(maxsize=8)
def opened(folder: str, features: str | None) -> PreparedSet:
    """A prepared set, with the folder of its features where it has one, stays open in a worker from batch to batch."""
    return PreparedSet(folder) if features is None else EncodedSet(folder, features)


def parts_from(value: Sequence[Sequence[Any]]) -> list[Part]:
    """Inverse of `[astuple(part), ...]` after JSON."""
    return [Part(*item) for item in value]
