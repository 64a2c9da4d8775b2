"""Charts about clues: what leaving them out does, what the filter knows about them, what accuracy costs in tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from cluenet.metrics.accuracy import is_right
from cluenet.metrics.clues import SILENT
from cluenet.metrics.faithfulness import Column, estimates, mean
from cluenet.records import content_hash
from cluenet.report.charts import Chart, Curve, Dots, Estimate, Point, curves, dot_plot, number, percentage
from cluenet.report.sources import Evaluation

MOST_CLUES = 400
"""Points of the scatter of gate against utility; more are thinned out by a hash."""
BINS = 8
"""Of equal mass, on the axis of the gate."""

Sample = Mapping[str, Any]
Judged = tuple[Sample, float, float, bool]
"""Of a stated clue: its question, gate, utility in nats, whether that makes it useful."""


def removal(evaluation: Evaluation) -> list[Chart]:
    """Deletion and insertion curves with their random controls."""
    block = evaluation.results.get("faithfulness") or {}
    words = {
        "deletion": "clues left out, the most important first",
        "insertion": "clues shown, the most important first",
    }
    return [_removal(name, block[name]["at"], words[name]) for name in words if name in block]


def _removal(name: str, points: Sequence[Mapping[str, Any]], x: str) -> Chart:
    ordered, random = (
        [_point(point["clues"], point if kind == "own" else point["random"]) for point in points]
        for kind in ("own", "none")
    )
    lines = [Curve("by importance", "own", ordered), Curve("in random order", "none", random)]
    return curves(
        f"{name.capitalize()} of clues", lines, x=x, y="probability of the answer, %", show=percentage, y_range=(0.0, 1.0),
        place="clues",
    )  # fmt: skip


def _point(x: float, found: Estimate) -> Point:
    return Point(x, found["value"], found["low"], found["high"])


def steering(evaluation: Evaluation) -> Chart | None:
    """What other clues do to answers: swap, edit and noise; None where it was not measured."""
    block = evaluation.results.get("faithfulness") or {}
    asked = [
        ("another video's clues: answer changes", "swap", "flip"),
        ("another video's clues: takes their answer", "swap", "steer"),
        ("renamed clues: takes the renamed answer", "edit", "steer"),
        ("a foreign clue is kept by the filter", "noise", "kept"),
        ("a stated clue is kept by the filter", "noise", "own_kept"),
    ]
    found = {words: block[part][name] for words, part, name in asked if block.get(part, {}).get(name, {}).get("n")}
    if not found:
        return None
    return dot_plot(
        "Swapped, renamed and foreign clues", list(found), [Dots("this run", "own", list(found.values()))], x="share, %",
        caption="Lines are 95 % intervals.", row_left=270,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the filter


def kept_by_type(evaluation: Evaluation) -> Chart | None:
    """Share of stated clues that the filter keeps, by question type; None without stated clues."""
    kinds = sorted({sample["type"] for sample in evaluation.samples if sample["clues"]})
    if not kinds:
        return None
    members = {"all types": evaluation.samples} | {
        kind: [sample for sample in evaluation.samples if sample["type"] == kind] for kind in kinds if len(kinds) > 1
    }
    found = [_kept(samples, evaluation.resamples) for samples in members.values()]
    return dot_plot(
        "Clues that the filter keeps", list(members), [Dots("kept", "own", found)], x="stated clues kept, %",
        caption="By question type, with 95 % intervals.",
    )  # fmt: skip


def _kept(samples: Sequence[Sample], resamples: int) -> Estimate:
    kept, stated = (
        [float(sum(clue["kept"] for clue in s["clues"])) for s in samples],
        [float(len(s["clues"])) for s in samples],
    )
    return estimates([s["video"] for s in samples], {"": (kept, stated)}, resamples=resamples)[""]


def gate_charts(evaluation: Evaluation) -> list[Chart]:
    """The gate against what clues are worth: every clue, and the share of useful ones by gate. Needs `diagnostics`."""
    judged = list(_judged(evaluation.samples))
    if not judged:
        return []
    return [_scatter(judged), _useful_by_gate(judged, evaluation.resamples)]


def _judged(samples: Sequence[Sample]) -> Iterator[Judged]:
    """Clues whose gate and worth are known."""
    for sample in samples:
        found = (sample.get("diagnostics") or {}).get("filter") or {}
        for clue, utility, useful in zip(sample["clues"], found.get("utility") or (), found.get("useful") or ()):
            if clue["gate"] is not None:
                yield sample, clue["gate"], utility, useful


def _scatter(judged: Sequence[Judged]) -> Chart:
    kind = judged[0][0]["diagnostics"]["filter"]["kind"].replace("_", "-")
    drawn = sorted(enumerate(judged), key=lambda item: content_hash(item[1][0]["id"], item[0]))[:MOST_CLUES]
    right, wrong = (
        [Point(gate, worth) for _, (s, gate, worth, _) in drawn if s["correct"] is v] for v in (True, False)
    )
    groups = [Curve("answered right", "own", right, False), Curve("answered wrong", "baseline", wrong, False)]
    rest = f"{len(drawn)} of {len(judged)} clues, drawn by a hash." if len(drawn) < len(judged) else ""
    return curves(
        "Gate and utility of every clue", [group for group in groups if group.points], x="gate, 0 to 1",
        y=f"utility ({kind}), nats", place="gate", show=number, reference=0.0, caption=rest, x_range=(0.0, 1.0),
    )  # fmt: skip


def _useful_by_gate(judged: Sequence[Judged], resamples: int) -> Chart:
    ordered = sorted(judged, key=lambda item: item[1])
    bin_N = np.arange(len(ordered)) * BINS // len(ordered)
    gate_N, useful_N = np.array([gate for _, gate, *_ in ordered]), np.array([float(useful) for *_, useful in ordered])
    columns: dict[str, Column] = {
        str(number): ((useful_N * (bin_N == number)).tolist(), (bin_N == number).astype(float).tolist())
        for number in np.unique(bin_N)
    }
    found = estimates([sample["video"] for sample, *_ in ordered], columns, resamples=resamples)
    points = [_point(float(gate_N[bin_N == int(number)].mean()), one) for number, one in found.items()]
    return curves(
        "Is the gate calibrated?", [Curve("useful clues", "own", points)], x="gate, mean of the bin", y="useful clues, %",
        place="gate", show=percentage, x_range=(0.0, 1.0), y_range=(0.0, 1.0),
        caption="Clues in bins of equal size by their gate, 95 % intervals.",
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- tokens and answers


def accuracy_by_tokens(evaluation: Evaluation) -> Chart | None:
    """Accuracy against the tokens of video and clues that the answer pass reads, with none, the kept and all stated clues.

    None where only one of them was measured.
    """
    known = [sample for sample in evaluation.samples if sample["correct"] is not None and sample["clues"]]
    ways: dict[str, tuple[list[bool], list[int]]] = {}
    if known and "none" in known[0]["rows"]:
        ways["no clues"] = [sample["rows"]["none"]["correct"] for sample in known], [0] * len(known)
    ways["kept clues"] = [s["correct"] for s in known], [_words(s, kept_only=True) for s in known]
    if known and all((sample.get("diagnostics") or {}).get("filter") for sample in known):
        right = [is_right(s["diagnostics"]["filter"]["unfiltered"], s["answer"]) for s in known]
        ways["all stated clues"] = right, [_words(s, kept_only=False) for s in known]
    if len(ways) < 2:
        return None
    return _by_tokens(known, ways, evaluation.resamples)


def _by_tokens(known: Sequence[Sample], ways: Mapping[str, tuple[list[bool], list[int]]], resamples: int) -> Chart:
    columns = {name: mean([float(one) for one in right]) for name, (right, _) in ways.items()}
    found = estimates([sample["video"] for sample in known], columns, resamples=resamples)
    seen = fmean(sample["tokens"]["seen"] for sample in known)
    roles = {"no clues": "none", "kept clues": "own", "all stated clues": "noise"}
    points = {name: _point(seen + fmean(words), found[name]) for name, (_, words) in ways.items()}
    return curves(
        "Accuracy against tokens kept", [Curve(name, roles[name], [point], False) for name, point in points.items()],
        x="tokens that the answer pass reads, mean", y="questions answered right, %", place="tokens",
        show=percentage, caption=f"Visual tokens and clue words, of {len(known)} questions with stated clues.",
    )  # fmt: skip


def _words(sample: Sample, *, kept_only: bool) -> int:
    shown = [clue for clue in sample["clues"] if clue["kept"] or not kept_only]
    return sum(word not in SILENT for clue in shown for word in clue["words"])
