"""What `cluenet diagnose` left in `<run>/diagnostics/`: its pictures, and its numbers as charts. The format: `cluenet.diagnose`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluenet.errors import DataError
from cluenet.report.charts import Chart, Curve, Dots, Point, curves, dot_plot, number, percentage
from cluenet.report.sources import RunData

MOST_BYTES = 1_000_000
"""Larger pictures are named, not shown."""
WORDS = {
    "attention.png": "Attention over frames, of questions answered right and wrong",
    "looking.png": "Attention inside the labelled boxes, and the pointing score, right against wrong answers",
}
"""Pictures that are shown; the others of the folder are drawn from numbers here, so that they can be explored."""
ROLES = {"question": "none", "option": "baseline", "clue": "own", "inside": "oracle", "outside": "noise"}
ROLE_WORDS = {"inside": "visual tokens on labelled boxes", "outside": "other visual tokens"}
PAIRS = {
    "clue_question": "clues and question", "clue_answer": "clues and right option", "clue_wrong": "clues and other options",
    "question_answer": "question and right option", "clue_inside": "clues and tokens on labelled boxes",
    "clue_outside": "clues and other visual tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    uri: str
    words: str


@dataclass(frozen=True)
class Diagnosed:
    """`missing`: what to do where there is nothing to show. `words`: by layer, what visual tokens say inside and outside boxes."""

    asked: str = ""
    missing: str = ""
    pictures: list[Picture] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def read_diagnosed(run: RunData) -> Diagnosed:
    """Raises DataError when diagnostics.json cannot be read."""
    folder = run.folder / "diagnostics"
    path, command = folder / "diagnostics.json", f"`cluenet diagnose {run.folder}`"
    if not path.is_file():
        return Diagnosed(missing=f"{command} draws attention over frames, what the layers say, and where clues lie.")
    measured = any((one.results.get("biases") or {}).get("cognition") for one in run.evaluations)
    try:
        return _diagnosed(folder, json.loads(path.read_text()), lens=not measured)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error!r}. Run {command} again.") from error


def _diagnosed(folder: Path, data: Mapping[str, Any], *, lens: bool) -> Diagnosed:
    """`lens`: whether its chart of CCR@k is shown; evaluation may have measured the same on all questions."""
    asked, layers, space = data["questions"], data["lens"] or {}, data["space"] or {}
    charts = [*(lens_charts(layers.get("ccr", ())) if lens else ()), *(_maps(space) if space else ())]
    return Diagnosed(
        f"{data['set']}: {asked['asked']} questions, of which {asked['right']} were answered right and {asked['wrong']} wrong.",
        "", _pictures(folder, data["files"]), charts, layers.get("words", []), data["notes"],
    )  # fmt: skip


def _pictures(folder: Path, files: Sequence[str]) -> list[Picture]:
    found = [(folder / name, words) for name, words in WORDS.items() if name in files]
    return [Picture(_uri(path), words) for path, words in found if path.is_file() and path.stat().st_size <= MOST_BYTES]


def _uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


# ------------------------------------------------------------------------------------------------------- charts


def lens_charts(points: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """CCR@k by layer, with what random words would have; `points` as `cognition` of `metrics.biases`."""
    lines = []
    for role, k in zip(("own", "oracle"), sorted({point["k"] for point in points})):
        mine = [point for point in points if point["k"] == k]
        rates = [Point(p["layer"], p["rate"]["value"], p["rate"]["low"], p["rate"]["high"]) for p in mine]
        lines.append(Curve(f"top {k}", role, rates))
        chance = [Point(p["layer"], p["chance"]) for p in mine]
        lines.append(Curve(f"top {k}, {k} random words", "none" if role == "own" else "noise", chance))
    if not lines:
        return []
    top = max(value for line in lines for p in line.points for value in (p.y, p.high or 0.0))
    return [
        curves(
            "Labelled words among a region's top words", lines, x="decoder layer", y="words found (CCR@k), %", place="layer",
            show=percentage, y_range=(0.0, min(1.0, 1.1 * top) or 1.0), caption="Logit lens on the visual tokens that a clue's boxes touch.",
        )
    ]  # fmt: skip


def _maps(space: Mapping[str, Any]) -> list[Chart]:
    first, second = (f"{100 * part:.0f} % of the variance" for part in space["explained"])
    return [
        _map("pca", "by PCA", space, f"first component, {first}", f"second component, {second}"),
        _map("tsne", "by t-SNE", space, "first axis, no unit", "second axis, no unit"),
        _proximity(space["proximity"]),
    ]


def _map(name: str, words: str, space: Mapping[str, Any], x: str, y: str) -> Chart:
    groups = {role: [one for one in space["points"] if one["role"] == role] for role in ROLES}
    lines = [
        Curve(
            ROLE_WORDS.get(role, role),
            ROLES[role],
            [Point(one[name][0], one[name][1], label=one["text"]) for one in group],
            False,
        )
        for role, group in groups.items()
        if group
    ]
    return curves(f"Questions, options, clues and visual tokens {words}", lines, x=x, y=y, show=number)


def _proximity(found: Mapping[str, Mapping[str, Any]]) -> Chart:
    names = [PAIRS.get(pair, pair) for pair in found]
    columns = [
        Dots(words, role, [row[group] for row in found.values()])
        for words, role, group in (("answered right", "own", "right"), ("answered wrong", "baseline", "wrong"))
    ]
    ends = [row[g][e] for row in found.values() for g in ("right", "wrong") for e in ("low", "high", "value")]
    spread = [value for value in ends if value is not None] or [0.0]
    return dot_plot(
        "How near are they?", names, columns, x="mean cosine, -1 to 1", show=number, row_left=230,
        x_range=(min(0.0, *spread), max(0.1, *spread)), caption="Of input embeddings; lines are 95 % intervals.",
    )  # fmt: skip
