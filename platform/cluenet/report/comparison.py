"""The page of `cluenet compare --html`: runs against a base, in the look of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluenet.folders import atomic_write_text
from cluenet.report.charts import Chart, Dots, dot_plot, points
from cluenet.report.facts import Change, changes
from cluenet.report.page import render
from cluenet.report.sources import read_run

ROLES = ("own", "oracle", "noise", "none")
"""Of runs in a chart; `baseline` is the base. More runs get more charts."""

Row = Mapping[str, Any]


def build_comparison(comparison: Mapping[str, Any], path: Path) -> Path:
    """Write the page and return its path. comparison: `cluenet.evaluate.compare.Report.to_dict()`.

    Raises DataError when a run cannot be read, StorageError when the page cannot be written.
    """
    return atomic_write_text(path, render("comparison.html.j2", context(comparison)))


def context(comparison: Mapping[str, Any]) -> dict[str, Any]:
    rows, base = comparison["rows"], comparison["base"]
    names = list(dict.fromkeys(row["test_set"] for row in rows))
    return {
        "base": base, "runs": comparison["runs"], "resamples": comparison["resamples"],
        "sets": [
            {"name": name, "rows": found, "charts": [c for part in _parts(found) for c in _charts(part, base["name"])]}
            for name in names
            for found in [[row for row in rows if row["test_set"] == name]]
        ],
        "changes": {run["name"]: _changes(run, base) for run in comparison["runs"]},
    }  # fmt: skip


def _changes(run: Mapping[str, Any], base: Mapping[str, Any]) -> list[Change]:
    """Of the first run of each arm: seeds of an arm differ in their seed."""
    return changes(*(read_run(Path(arm["runs"][0])) for arm in (run, base)))


def _parts(rows: Sequence[Row]) -> Iterator[dict[str, list[Row]]]:
    """Rows by run, as many runs as a chart has colours."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row)
    names = list(runs)
    for start in range(0, len(names), len(ROLES)):
        yield {name: runs[name] for name in names[start : start + len(ROLES)]}


def _charts(runs: Mapping[str, Sequence[Row]], base: str) -> Iterator[Chart]:
    kinds = [row["type"] for row in next(iter(runs.values()))]
    gains = [
        Dots(name, role, [row["result"]["difference"] for row in rows])
        for role, (name, rows) in zip(ROLES, runs.items())
    ]
    ends = [value[end] for dots in gains for value in dots.values if value for end in ("low", "value", "high")]
    widest = max((abs(end) for end in ends if end is not None), default=0.0) or 0.1
    yield dot_plot(
        f"Difference to {base}", kinds, gains, x="questions answered right more often, points", reference=0.0,
        x_range=(-widest, widest), show=points, caption="Lines are 95 % intervals; dotted: no difference.",
    )  # fmt: skip
    first = next(iter(runs.values()))
    scores = [Dots(f"{base} (base)", "baseline", [_score(row, "accuracy_a") for row in first])]
    scores += [
        Dots(name, role, [_score(row, "accuracy_b") for row in rows]) for role, (name, rows) in zip(ROLES, runs.items())
    ]
    yield dot_plot("Accuracy by question type", kinds, scores, x="questions answered right, %")


def _score(row: Row, name: str) -> dict[str, Any]:
    return {"value": row["result"][name], "low": None, "high": None, "n": row["questions"]}
