"""The files of a grid's result: grid.json, grid.csv, grid.html. The same content gives the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluenet.folders import atomic_write_json, atomic_write_text
from cluenet.grid.tables import notes, selection
from cluenet.report import charts
from cluenet.report.charts import Chart, Curve, Dots, Point
from cluenet.report.page import render

COSTS = (("tokens", "tokens per question", 1.0), ("seconds_per_question", "milliseconds per question", 1000.0))
PIXELS_PER_LETTER = 7


def write(folder: Path, content: Mapping[str, Any]) -> list[Path]:
    """content: of grid.json. Returns the files. Raises StorageError."""
    page = render(
        "grid.html.j2",
        {
            "grid": content, **_charts(content), "notes": list(notes(content)),
            "selection": content["asha"] and selection(content["asha"]),
        },
        folder=Path(__file__).parent,
    )  # fmt: skip
    return [
        atomic_write_json(folder / "grid.json", content),
        atomic_write_text(folder / "grid.csv", _csv(content)),
        atomic_write_text(folder / "grid.html", page),
    ]


# ------------------------------------------------------------------------------------------------------------ CSV


def _csv(content: Mapping[str, Any]) -> str:
    """Shares as in grid.json; empty where there is none."""
    out = io.StringIO()
    rows = [line for cell in content["cells"] for line in _lines(content, cell)]
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _lines(content: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in content["test_sets"] or [""]:
        yield {"cell": cell["name"], **cell["values"], "state": cell["state"], "test_set": name, **_numbers(cell, name)}


def _numbers(cell: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = cell["sets"].get(name, {})
    accuracy, row = found.get("accuracy", {}), found.get("difference") or {}
    result = row.get("result", {})
    difference = result.get("difference", {})
    return {
        "seeds": sum(run["state"] == "finished" for run in cell["runs"]), "questions": accuracy.get("n"),
        "accuracy": accuracy.get("value"), "low": accuracy.get("low"), "high": accuracy.get("high"),
        "accuracies": " ".join(map(str, found.get("accuracies", ()))),
        **{f"difference{end}": difference.get(key) for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))},
        "p": result.get("p_value"), "p_holm": row.get("p_holm"),
        "tokens": found.get("tokens"), "seconds_per_question": found.get("seconds_per_question"), "pareto": found.get("pareto"),
        "refused": found.get("refused"), "why": "; ".join(run["why"] for run in cell["runs"] if run["why"]),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ page


def _charts(content: Mapping[str, Any]) -> dict[str, Any]:
    """By test set: accuracies, differences, and accuracy against what it costs."""
    return {
        "accuracies": {name: _accuracies(content, name) for name in content["test_sets"]},
        "differences": {name: _differences(content, name) for name in content["test_sets"]},
        "fronts": {name: [_front(content, name, *cost) for cost in COSTS] for name in content["test_sets"]},
    }


def _with(content: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    return [(cell["name"], cell["sets"][name]) for cell in content["cells"] if name in cell["sets"]]


def _accuracies(content: Mapping[str, Any], name: str) -> Chart:
    found = _with(content, name)
    dots = Dots("accuracy", "own", [one["accuracy"] for _, one in found])
    cells = [cell for cell, _ in found]
    return charts.dot_plot("Questions answered right", cells, [dots], x="share of questions, %", row_left=_space(cells))


def _differences(content: Mapping[str, Any], name: str) -> Chart | None:
    found = [
        (cell, one["difference"]["result"]["difference"]) for cell, one in _with(content, name) if one["difference"]
    ]
    if not found:
        return None
    ends = [abs(end) for _, one in found for end in (one["value"], one["low"], one["high"]) if end is not None]
    widest, cells = max(*ends, 0.01), [cell for cell, _ in found]
    return charts.dot_plot(
        f"Difference to {content['cells'][0]['name']}", cells, [Dots("difference", "own", [one for _, one in found])],
        x="points", reference=0.0, x_range=(-widest, widest), row_left=_space(cells),
    )  # fmt: skip


def _space(names: Sequence[str]) -> int:
    """Pixels for the longest name."""
    return max(charts.ROW_LEFT, min(PIXELS_PER_LETTER * max(map(len, names)) + 16, charts.WIDTH))


def _front(content: Mapping[str, Any], name: str, key: str, title: str, times: float) -> Chart:
    """Each cell by itself, so that its name is shown; those that are best for some wish in the run's own colour."""
    points = [
        Curve(
            cell, "own" if one["pareto"] else "none", [Point(times * one[key], one["accuracy"]["value"])], joined=False
        )
        for cell, one in _with(content, name)
    ]
    return charts.curves(
        f"Accuracy against {title.split()[0]}", points, x=title, y="questions answered right, %", show=charts.percentage
    )
