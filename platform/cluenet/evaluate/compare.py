"""Runs against a base on the same questions: accuracies, differences with intervals, tests corrected for their number, power.

Rows of a comparison belong to one family of tests each, in which Holm's correction holds: ALL of every run and test set (is
any run different?), and for each run its parts, question types and pairs, of all test sets (where does it differ?).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cluenet.evaluate.arms import Arm, read_arms, same_models
from cluenet.evaluate.reliability import is_yes_no
from cluenet.evaluate.samples import Sample
from cluenet.metrics.arms import RESAMPLES, Comparison, compare_arms
from cluenet.metrics.hallucination import pairs_of
from cluenet.metrics.inference import holm

ALL = "all types"
PAIRS = "yes/no pairs"
CAPTION = (
    "Difference to {base} with its 95 % bootstrap interval, by video (and by run, where an arm has several): the one to trust. "
    "p: exact McNemar test, of several runs bootstrap. Holm: p corrected for all runs and test sets ({all}), types for all "
    "types of a run. Detects: the difference that would be found with 80 % power."
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a question type, ALL or PAIRS of a test set, of one arm against the base.

    questions: those whose answers are known; of PAIRS, the pairs, right when all their questions are. family, tests: the
    rows that `p_holm` is corrected for, and how many of them were tested.
    """

    run: str
    test_set: str
    type: str
    questions: int
    videos: int
    result: Comparison
    family: str
    tests: int = 0
    p_holm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "result": self.result.to_dict()}


@dataclass(frozen=True)
class Report:
    """`arms`: the base first. Rows in the order of arms and test sets, ALL first in each."""

    arms: tuple[Arm, ...]
    rows: tuple[Row, ...]
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """Of a result, `a` is the base."""
        arms = [{"name": arm.name, "runs": [str(run.folder) for run in arm.runs]} for arm in self.arms]
        return {
            "base": arms[0], "runs": arms[1:], "resamples": self.resamples, "rows": [row.to_dict() for row in self.rows],
        }  # fmt: skip


def compare(
    base: Sequence[Path], *others: Sequence[Path], resamples: int = RESAMPLES, across_frames: bool = False
) -> Report:
    """Every arm of `others` against `base`, on every test set; an arm is the folders of its runs.

    across_frames: how frames are chosen is what is compared, so they may differ. Positive differences mean that the other arm is better. Raises DataError when a run is not evaluated, or runs differ in
    test sets, questions, number of options or frame policy.
    """
    arms = read_arms([base, *others], across_frames=across_frames)
    rows = [row for arm in arms[1:] for row in rows_of(arms[0], arm, resamples)]
    return Report(tuple(arms), tuple(corrected(rows)), resamples)


def corrected(rows: Sequence[Row]) -> list[Row]:
    """With Holm's correction within each family."""
    result = list(rows)
    for family in dict.fromkeys(row.family for row in rows):
        places = [place for place, row in enumerate(rows) if row.family == family]
        p_values = [rows[place].result.p_value for place in places]
        tests = sum(p_value is not None for p_value in p_values)
        for place, adjusted in zip(places, holm(p_values)):
            result[place] = replace(rows[place], tests=tests, p_holm=adjusted)
    return result


def rows_of(base: Arm, arm: Arm, resamples: int = RESAMPLES) -> Iterator[Row]:
    """Of every test set; the arms can be compared (`arms.differences`)."""
    for name in base.runs[0].sets:
        yield from _rows(base, arm, name, resamples)


def _rows(base: Arm, arm: Arm, name: str, resamples: int) -> Iterator[Row]:
    samples, same = base.runs[0].samples[name], same_models(base, arm, name)
    for kind, units in _parts(base.known(name), samples):
        videos = [samples[unit[0]]["video"] for unit in units]
        result = compare_arms(
            rights(base, name, units), rights(arm, name, units), videos, resamples=resamples, same_models=same
        )
        family = ALL if kind == ALL else f"types of {arm.name}"
        yield Row(arm.name, name, kind, len(units), len(set(videos)), result, family)


def _parts(known: Sequence[str], samples: Mapping[str, Sample]) -> Iterator[tuple[str, list[list[str]]]]:
    """What is compared, as units of question ids that are right together."""
    yield ALL, [[key] for key in known]
    kinds = sorted({samples[key]["type"] for key in known})
    for kind in kinds if len(kinds) > 1 else ():
        yield kind, [[key] for key in known if samples[key]["type"] == kind]
    asked = [key for key in known if is_yes_no(samples[key])]
    if pairs := pairs_of([samples[key]["meta"].get("pair") for key in asked]):
        yield PAIRS, [[asked[place] for place in members] for members in pairs]


def rights(arm: Arm, name: str, units: Sequence[Sequence[str]]) -> np.ndarray:
    """[runs, units]: whether all questions of a unit were answered right."""
    found = [[all(run.samples[name][key]["correct"] for key in unit) for unit in units] for run in arm.runs]
    return np.array(found, dtype=float).reshape(len(arm.runs), len(units))


# ----------------------------------------------------------------------------------------------------- terminal


def table(report: Report) -> Table:
    """For the terminal."""
    base, *others = (arm.name for arm in report.arms)
    tests = next((row.tests for row in report.rows if row.family == ALL), 0)
    caption = CAPTION.format(base=base, all=f"{tests} test{'' if tests == 1 else 's'}")
    title = f"{others[0] if len(others) == 1 else 'runs'} against {base}, % of questions answered right"
    columns = ("run", "test set", "type", "n", "base", "run", "difference", "95 % interval", "p", "Holm", "detects")
    result = Table(*columns, title=title, caption=caption)
    for column in result.columns[3:]:
        column.justify = "right"
    for row, following in zip(report.rows, [*report.rows[1:], None]):
        ends = following is None or (following.run, following.test_set) != (row.run, row.test_set)
        result.add_row(*_cells(row), style="bold" if row.type == ALL else None, end_section=ends)
    return result


def _cells(row: Row) -> tuple[str, ...]:
    result = row.result
    interval = f"{_signed(result.difference.low)} .. {_signed(result.difference.high)}"
    accuracies = (_percent(result.accuracy_a), _percent(result.accuracy_b), _signed(result.difference.value))
    numbers = (_p(result.p_value), _p(row.p_holm), _percent(result.power.minimum_detectable))
    return row.run, row.test_set, row.type, str(row.questions), *accuracies, interval, *numbers


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
