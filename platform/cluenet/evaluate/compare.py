"""Two runs on the same questions, side by side: accuracy, difference with interval, exact McNemar test, by type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from cluenet.errors import DataError, suggestion
from cluenet.evaluate.evaluator import read_samples
from cluenet.evaluate.samples import Sample
from cluenet.folders import finished
from cluenet.metrics.statistics import Paired, check_same_questions, paired

ALL = "all types"


@dataclass(frozen=True)
class Row:
    """One line of the table: a question type (or ALL) of a test set, with `questions` whose answers are known."""

    test_set: str
    type: str
    questions: int
    result: Paired

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(run_a: Path, run_b: Path, *, resamples: int = 1000) -> list[Row]:
    """Run B against run A on every test set; positive differences mean that B is better. ALL comes first in each set.

    Raises DataError when a run is not evaluated, or test sets or questions differ.
    """
    sets_a, sets_b = evaluations(run_a), evaluations(run_b)
    for name in {**sets_a, **sets_b}:
        if name not in sets_a or name not in sets_b:
            where, other = (run_a, sets_a) if name not in sets_a else (run_b, sets_b)
            raise DataError(f"{where}: not evaluated on {name!r}. {suggestion(name, other, label='Evaluated on')}")
    return [
        row
        for name in sets_a
        for row in compare_samples(name, read_samples(sets_a[name]), read_samples(sets_b[name]), resamples)
    ]


def evaluations(run: Path) -> dict[str, Path]:
    """Finished evaluations of a run by the name of their test set. Raises DataError when there is none."""
    folder = Path(run) / "evaluation"
    found = {path.name: path for path in sorted(folder.glob("*")) if finished(path)}
    if not found:
        raise DataError(f"{run}: no finished evaluation in {folder}. Evaluate the run first: cluenet evaluate RECIPE")
    return found


def compare_samples(name: str, a: Sequence[Sample], b: Sequence[Sample], resamples: int) -> list[Row]:
    """Raises DataError when the two did not answer the same questions, word for word."""
    by_id_a, by_id_b = ({sample["id"]: sample for sample in samples} for samples in (a, b))
    try:
        check_same_questions(by_id_a, by_id_b)
        _check_same_words(by_id_a, by_id_b)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    known = [key for key in by_id_a if by_id_a[key]["correct"] is not None]
    return [_row(name, kind, keys, by_id_a, by_id_b, resamples) for kind, keys in _by_type(known, by_id_a)]


def _check_same_words(a: Mapping[str, Sample], b: Mapping[str, Sample]) -> None:
    for key in a:
        for part in ("video", "question", "options", "answer", "type"):
            if a[key][part] != b[key][part]:
                raise DataError(
                    f"question {key} differs between the runs: {part} is {a[key][part]!r} and {b[key][part]!r}. Evaluate both "
                    "on the same test sets (`data.test`)."
                )


def _by_type(keys: Sequence[str], samples: Mapping[str, Sample]) -> Iterator[tuple[str, list[str]]]:
    yield ALL, list(keys)
    kinds = sorted({samples[key]["type"] for key in keys})
    for kind in kinds if len(kinds) > 1 else ():
        yield kind, [key for key in keys if samples[key]["type"] == kind]


def _row(
    name: str, kind: str, keys: list[str], a: Mapping[str, Sample], b: Mapping[str, Sample], resamples: int
) -> Row:
    right_a, right_b = ({key: bool(samples[key]["correct"]) for key in keys} for samples in (a, b))
    videos = {key: a[key]["video"] for key in keys}
    return Row(name, kind, len(keys), paired(right_a, right_b, videos, resamples=resamples))


def table(rows: Sequence[Row], *, name_a: str = "A", name_b: str = "B") -> Table:
    """For the terminal. The interval is by video and is the one to trust; p is the exact McNemar test of the questions."""
    title = f"{name_b} against {name_a}, % of questions answered right"
    caption = (
        "difference: 95 % bootstrap interval by video. p: exact McNemar test. Types are not corrected for being many."
    )
    result = Table(
        "test set", "type", "n", name_a, name_b, "difference", "95 % interval", "p", title=title, caption=caption
    )
    for column in result.columns[2:]:
        column.justify = "right"
    for row in rows:
        a, b, difference = row.result.accuracy_a, row.result.accuracy_b, row.result.difference
        style = "bold" if row.type == ALL else None
        interval = f"{_signed(difference.low)} .. {_signed(difference.high)}"
        cells = (_percent(a), _percent(b), _signed(difference.value), interval, _p(row.result.p_value))
        result.add_row(row.test_set, row.type, str(row.questions), *cells, style=style)
    return result


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
