"""Accuracy during training: what chooses the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cluenet.metrics.accuracy import is_right
from cluenet.model.batch import Batch
from cluenet.model.evidence import ClueRow
from cluenet.model.pipeline import ClueNet
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.train.batches import Clip
from cluenet.train.group import Group
from cluenet.train.plan import evenly
from cluenet.train.supervision import has_clues

ROWS: dict[str, ClueRow] = {"accuracy": "own", "oracle_accuracy": "oracle"}
"""Validation metrics and the clues that the reasoner reads for them."""
UNFILTERED: dict[str, ClueRow] = {**ROWS, "accuracy": "stated"}
"""The same for a stage that does not teach the filter, and so must not depend on it."""


class Validator:
    """Validates on at most `max_clips` clips of all sets together, the same ones every time, spread evenly.

    Each worker takes its part; the counts are summed over all of them. `filtered`: the reasoner reads what the filter keeps
    of the model's own clues, not all of them.
    """

    def __init__(
        self, sets: Sequence[PreparedSet], metrics: Sequence[str], group: Group, *, max_clips: int | None,
        clips_per_batch: int, filtered: bool = True,
    ):  # fmt: skip
        everything = [(prepared, key) for prepared in sets for key in prepared.clip_keys]
        chosen = [everything[index] for index in evenly(len(everything), max_clips)]
        self.any = bool(chosen)
        self._mine = chosen[group.rank :: group.size]
        self._rows = ROWS if filtered else UNFILTERED
        self._metrics, self._group, self._clips_per_batch = tuple(metrics), group, clips_per_batch

    def count(self, model: ClueNet) -> Tensor:
        """[metrics + 1] right answers by metric, and questions with a known answer, of this worker's part."""
        counts = torch.zeros(len(self._metrics) + 1, dtype=torch.float64)
        for batch in self._batches(model):
            batch = batch.to(self._group.device)
            answers = model.predict_rows(batch, [self._rows[metric] for metric in self._metrics])
            known = [place for place, example in enumerate(batch.examples) if example.answer is not None]
            for column, metric in enumerate(self._metrics):
                given = answers[self._rows[metric]]
                counts[column] += sum(is_right(given[i].prediction, batch.examples[i].answer) for i in known)
            counts[-1] += len(known)
        return counts

    def scores(self, counts: Tensor) -> dict[str, float]:
        """Counts of all workers together -> each metric as the share of right answers, and `questions`."""
        *right, questions = self._group.sum(counts).tolist()
        scores = {metric: count / max(1.0, questions) for metric, count in zip(self._metrics, right)}
        return {**scores, "questions": int(questions)}

    def _batches(self, model: ClueNet) -> Iterator[Batch]:
        for first in range(0, len(self._mine), self._clips_per_batch):
            part = self._mine[first : first + self._clips_per_batch]
            clips: list[Clip] = [(prepared.clip(key), prepared.examples_of(key)) for prepared, key in part]
            yield model.collate(clips, seed=0, shuffle_options=False)


def metrics_of(recipe: Recipe) -> list[str]:
    """What validation measures: with clues also how well the reasoner does on ground truth."""
    return ["accuracy", "oracle_accuracy"] if has_clues(recipe.model) else ["accuracy"]
