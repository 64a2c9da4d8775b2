"""A benchmark's own metrics and result files, from samples.jsonl and from what was quarantined before it could be asked.

benchmark  {all, answered}: the dataset's measures, each {value, stderr, low, high, n}; `all` counts what got no answer
           as wrong, `answered` leaves it out, so that a missing video never changes a score silently. Null, with a note,
           for a dataset without metrics of its own and for a split without public answers; its result files have all rows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluenet.contracts import Dataset
from cluenet.evaluate.samples import Sample
from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import Verdict

NO_METRICS = "this dataset has no metrics besides accuracy by type, or no public answers to measure by"


def verdicts_of(samples: Sequence[Sample], lost: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Of every row, in the order of their ids. `lost`: rows of quarantine.jsonl."""
    return sorted([*map(_asked, samples), *map(_lost, lost)], key=lambda one: one.id)


def _asked(sample: Sample) -> Verdict:
    return Verdict(
        id=sample["id"], video=sample["video"], type=sample["type"], options=tuple(sample["options"]),
        answer=sample["answer"], prediction=sample["prediction"], correct=bool(sample["correct"]), span=_span(sample),
        meta=sample["meta"], hidden=sample["answer"] is None,
    )  # fmt: skip


def _lost(row: Mapping[str, Any]) -> Verdict:
    return Verdict(
        id=row["id"], video=row["path"], type=row["type"], meta=row["meta"], asked=False, hidden=is_hidden(row)
    )


def is_hidden(row: Mapping[str, Any]) -> bool:
    """Whether a row of quarantine.jsonl had no public answer, so that it counts in no score."""
    return bool(row.get("hidden", False))


def _span(sample: Sample) -> tuple[float, float] | None:
    """From the first to the last moment that the kept clues point at."""
    timed = [clue for clue in sample["clues"] if clue["kept"] and clue["start_seconds"] is not None]
    if not timed:
        return None
    return min(clue["start_seconds"] for clue in timed), max(clue["end_seconds"] for clue in timed)


def measurable(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those whose answer is public, or that are too bad to tell. None of a split without public answers."""
    known = [one for one in verdicts if not one.hidden]
    return known if any(one.asked for one in known) else []


def benchmark(dataset: type[Dataset], verdicts: Sequence[Verdict], resamples: int) -> dict[str, Any] | None:
    """The block `benchmark`, None where the dataset has no metrics of its own or no answer is known."""
    known = measurable(verdicts)
    if not known:
        return None
    answered = [one for one in known if one.prediction is not None]
    blocks = {"all": dataset.measures(known), "answered": dataset.measures(answered)}
    if not blocks["all"]:
        return None
    return {name: measured(measures, resamples=resamples) for name, measures in blocks.items()}
