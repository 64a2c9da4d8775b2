"""Curves of a `logging.jsonl`: the loss, its terms, validation, and how the optimiser went, by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluenet.report.charts import Chart, Curve, Point, curves, number, percentage

HOW = ("lr", "grad_norm", "samples_per_second")
"""How training went, not what it reached: shown apart."""
NOT_CURVES = ("stage", "step", "seconds", "validation/questions")
FIRST = ("loss", "answer", "concept", "attention", "chain", "filter", "answer_accuracy")
UNITS = {
    "loss": "weighted sum of the terms", "answer": "cross-entropy, nats", "concept": "cross-entropy, nats per word",
    "attention": "cross-entropy, nats", "chain": "cross-entropy, nats per token", "filter": "loss of the gate",
    "answer_accuracy": "training answers right, %", "validation/accuracy": "validation answers right, %",
    "validation/oracle_accuracy": "right with ground-truth clues, %", "lr": "learning rate", "grad_norm": "norm of the gradient",
    "samples_per_second": "questions per second",
}  # fmt: skip


def stages(log: Sequence[dict[str, Any]]) -> dict[str, tuple[list[Chart], list[Chart]]]:
    """(what was reached, how it went) of every stage."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in log:
        lines.setdefault(line["stage"], []).append(line)
    return {stage: _charts(stage, found) for stage, found in lines.items()}


def _charts(stage: str, lines: Sequence[dict[str, Any]]) -> tuple[list[Chart], list[Chart]]:
    names = _names(lines)
    reached, how = ([name for name in names if (name in HOW) is kind] for kind in (False, True))
    return [_chart(name, stage, lines) for name in reached], [_chart(name, stage, lines) for name in how]


def _names(lines: Sequence[dict[str, Any]]) -> list[str]:
    found = {name for line in lines for name in line if name not in NOT_CURVES and not name.startswith("labels/")}
    order = {name: place for place, name in enumerate(FIRST)}
    return sorted(found, key=lambda name: (order.get(name, len(order)), name))


def _chart(name: str, stage: str, lines: Sequence[dict[str, Any]]) -> Chart:
    points = [Point(float(line["step"]), float(line[name])) for line in lines if name in line]
    show = percentage if name.endswith("accuracy") else number
    values = dict.fromkeys((show(points[0].y), show(points[-1].y)))
    return curves(
        f"{name}, {stage}", [Curve(name, "own", points)], x="optimiser step", y=UNITS.get(name, "loss"), place="step",
        show=show, caption=" → ".join(values),
    )  # fmt: skip
