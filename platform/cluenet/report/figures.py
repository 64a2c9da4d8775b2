"""Geometry of the report's figures: numbers in, SVG coordinates and percentages out. The template only draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

MOST_POINTS = 240
"""Points of a curve; longer ones are averaged over equal stretches of steps."""
WIDTH, HEIGHT = 320, 170
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 8, 22
NOT_CURVES = ("stage", "step", "lr", "grad_norm", "seconds", "samples_per_second")
FIRST_CURVES = ("loss", "answer", "concept", "attention", "chain", "filter", "answer_accuracy")

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    at: float  # pixels
    label: str


@dataclass(frozen=True)
class Panel:
    """One curve as SVG of WIDTH x HEIGHT. `dots`: the points themselves where they are few."""

    name: str
    stage: str
    line: str  # points of a polyline
    dots: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    first: float
    last: float
    averaged: int  # steps per point


def panels(log: Sequence[dict[str, Any]]) -> dict[str, list[Panel]]:
    """Every curve of a `logging.jsonl`, by stage: the loss, its terms, other metrics, validation."""
    stages: dict[str, list[dict[str, Any]]] = {}
    for line in log:
        stages.setdefault(line["stage"], []).append(line)
    return {stage: [_curve(name, stage, lines) for name in _names(lines)] for stage, lines in stages.items()}


def _names(lines: Sequence[dict[str, Any]]) -> list[str]:
    found = {name for line in lines for name in line if name not in NOT_CURVES and not name.startswith("labels/")}
    found -= {"validation/questions"}
    order = {name: place for place, name in enumerate(FIRST_CURVES)}
    return sorted(found, key=lambda name: (order.get(name, len(order)), name))


def _curve(name: str, stage: str, lines: Sequence[dict[str, Any]]) -> Panel:
    points = [(float(line["step"]), float(line[name])) for line in lines if name in line]
    return panel(name, stage, points)


def panel(name: str, stage: str, points: Sequence[Point]) -> Panel:
    """`points`: (step, value), ascending, at least one."""
    few = average(points, MOST_POINTS)
    x_range, y_range = _range([x for x, _ in few]), _range([y for _, y in few])

    def x_of(value: float) -> float:
        return round(LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT), 1)

    def y_of(value: float) -> float:
        return round(TOP + (y_range[1] - value) / (y_range[1] - y_range[0]) * (HEIGHT - TOP - BOTTOM), 1)

    places = [(x_of(x), y_of(y)) for x, y in few]
    return Panel(
        name, stage, " ".join(f"{x},{y}" for x, y in places), tuple(places if len(places) <= 20 else ()),
        tuple(Tick(x_of(value), _label(value)) for value in _ticks([x for x, _ in few])),
        tuple(Tick(y_of(value), _label(value)) for value in _ticks([y for _, y in few])),
        points[0][1], points[-1][1], math.ceil(len(points) / len(few)),
    )  # fmt: skip


def average(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: means over stretches of equally many."""
    stretch = math.ceil(len(points) / most)
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [(fmean(x for x, _ in part), fmean(y for _, y in part)) for part in parts]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers within the values; the value itself where there is only one."""
    low, high = min(values), max(values)
    return ticks(low, high, 5) if high > low else [low]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within low..high, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(count * step, 12) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:.4g}"


# ------------------------------------------------------------------------------------------- bars and time lines


def percent(share: float) -> float:
    """0..1 as a CSS percentage, kept within the track."""
    return round(100 * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True)
class Bar:
    """A stretch of a horizontal track, in percent of its width."""

    left: float
    width: float


def bar(low: float, high: float, start: float, end: float, *, least: float = 1.5) -> Bar:
    """low..high on a track from `start` to `end`; at least `least` percent wide, so that an instant is seen."""
    length = max(end - start, 1e-9)
    left, right = percent((low - start) / length), percent((high - start) / length)
    width = max(right - left, least)
    return Bar(round(min(left, 100 - width), 2), round(width, 2))


def frame_numbers(count: int, most: int) -> list[int]:
    """At most `most` of `count` frames, spread evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def nearest(times: Iterable[float], seconds: float) -> int:
    return min(enumerate(times), key=lambda item: abs(item[1] - seconds))[0]
