"""Charts as SVG: numbers in, coordinates and words out; the macro `chart` of `macros.html.j2` only draws them.

They are drawn here and not by a JavaScript library, so that a page without scripts, on paper or read aloud still has them, their
colours follow the reader's light or dark, and a report stays small (plotly's smallest bundle alone is over a megabyte).
`charts.js` adds what only a script can: values under the pointer or by arrow keys, series switched off and on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

MOST_POINTS = 240
"""Points of a curve; longer ones are averaged over equal stretches."""
MOST_MARKS = 60
"""Up to so many points of a curve are drawn as marks, and listed in the table of values."""
WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 42
MARGIN = 0.06
"""Around single points, as a share of their range, so that none stands on an axis."""
ROW_LEFT, ROW_STEP, ROW_GAP = 130, 12, 12
"""Of dot plots: space for names of rows, height of a dot, and what is between rows. Pixels, as all lengths here."""

Words = Callable[[float], str]
Estimate = Mapping[str, Any]
"""{value, low, high, n} of results.json."""


@dataclass(frozen=True)
class Point:
    """x, y in data units; low, high: the ends of the interval of y. `label`: what the point is called, else its x."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """`role`: a colour of `palette.Colours.series`. `joined`: by a line, else points alone."""

    name: str
    role: str
    points: Sequence[Point]
    joined: bool = True


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    where: str  # words of the place: "step 300", "causal"
    value: str
    interval: str = ""
    low: float | None = None  # pixels
    high: float | None = None

    @property
    def words(self) -> str:
        return f"{self.where}: {self.value}{f' [{self.interval}]' if self.interval else ''}"


@dataclass(frozen=True)
class Series:
    name: str
    role: str
    shape: str
    marks: tuple[Mark, ...]
    line: str = ""  # points of a polyline
    band: str = ""  # points of a polygon

    @property
    def tips(self) -> list[tuple[float, float, str]]:
        """What `charts.js` shows at which place."""
        return [(mark.x, mark.y, f"{self.name}, {mark.words}") for mark in self.marks]


@dataclass(frozen=True)
class Chart:
    """Ready to draw: pixels of an SVG of width x height."""

    title: str
    caption: str
    x_title: str
    y_title: str
    width: int
    height: int
    left: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    rows: tuple[Tick, ...] = ()  # names of the rows of a dot plot
    reference: float | None = None  # pixels: x of a dotted line in dot plots, y in others
    separators: tuple[float, ...] = ()  # pixels: between rows
    plot: dict[str, int] = field(default_factory=lambda: {"right": RIGHT, "top": TOP, "bottom": BOTTOM})

    @property
    def alternative(self) -> str:
        """What is read aloud instead of the picture."""
        about = "; ".join(
            f"{one.name} from {one.marks[0].words} to {one.marks[-1].words}" for one in self.series if one.marks
        )
        return f"{self.title}. {self.y_title or 'Rows'} by {self.x_title}. {about}"

    @property
    def listed(self) -> bool:
        """Whether its values fit into a table."""
        return sum(len(one.marks) for one in self.series) <= MOST_MARKS


SHAPES = {"own": "circle", "baseline": "square", "oracle": "diamond", "noise": "triangle", "none": "cross"}
"""Of marks, by role: nothing is told by colours alone."""


def number(value: float) -> str:
    return f"{value:.4g}"


def percentage(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * value:+.1f} points"


# ------------------------------------------------------------------------------------------------------- curves


def curves(
    title: str, curves: Sequence[Curve], *, x: str, y: str, caption: str = "", place: str = "", show: Words = number,
    reference: float | None = None, x_range: tuple[float, float] | None = None, y_range: tuple[float, float] | None = None,
) -> Chart:  # fmt: skip
    """A line or scatter chart. `x`, `y`: axis titles, with units. `place`: what an x is called in words, such as "step".

    `show`: how values of y are written. `reference`: a y to compare with, such as chance. Ranges: by default those of the values.
    """
    few = [Curve(c.name, c.role, average(c.points, MOST_POINTS) if c.joined else c.points, c.joined) for c in curves]
    every = [point for curve in few for point in curve.points]
    if not every:
        raise ValueError(f"{title}: no points")
    margin = 0.0 if any(curve.joined for curve in curves) else MARGIN
    x_axis = _Axis.of(x_range or [p.x for p in every], LEFT, WIDTH - RIGHT, 0.0 if x_range else margin)
    spread = [v for p in every for v in (p.y, p.low, p.high) if v is not None]
    spread += [] if reference is None else [reference]
    y_axis = _Axis.of(y_range or spread, HEIGHT - BOTTOM, TOP, 0.0 if y_range else margin)
    series = tuple(_curve(curve, x_axis, y_axis, place or x, show) for curve in few)
    return Chart(
        title, caption, x, y, WIDTH, HEIGHT, LEFT, x_axis.ticks(number), y_axis.ticks(_short_of(show)), series,
        reference=None if reference is None else y_axis.at(reference),
    )  # fmt: skip


def _curve(curve: Curve, x_axis: _Axis, y_axis: _Axis, place: str, show: Words) -> Series:
    marks = tuple(
        Mark(
            x_axis.at(p.x), y_axis.at(p.y), p.label or f"{place} {number(p.x)}", show(p.y), _interval(p.low, p.high, show),
            None if p.low is None else y_axis.at(p.low), None if p.high is None else y_axis.at(p.high),
        )
        for p in curve.points
    )  # fmt: skip
    bounded = [mark for mark in marks if mark.low is not None and mark.high is not None]
    band = [(m.x, m.high) for m in bounded] + [(m.x, m.low) for m in reversed(bounded)] if curve.joined else []
    line = _path((m.x, m.y) for m in marks) if curve.joined and len(marks) > 1 else ""
    return Series(curve.name, curve.role, SHAPES[curve.role], marks, line, _path(band))


def average(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: means over stretches of equally many, which have no interval then."""
    stretch = math.ceil(len(points) / most)
    if stretch <= 1:
        return list(points)
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    return [Point(fmean(p.x for p in part), fmean(p.y for p in part)) for part in parts]


# ----------------------------------------------------------------------------------------------------- dot plots


@dataclass(frozen=True)
class Dots:
    """One value per row, None where there is none."""

    name: str
    role: str
    values: Sequence[Estimate | None]


def dot_plot(
    title: str, rows: Sequence[str], columns: Sequence[Dots], *, x: str, caption: str = "", show: Words = percentage,
    reference: float | None = None, x_range: tuple[float, float] = (0.0, 1.0), row_left: int = ROW_LEFT,
) -> Chart:  # fmt: skip
    """Values with intervals on a horizontal axis, a row of dots per name. `row_left`: pixels for the names."""
    axis = _Axis(*x_range, row_left, 2 * WIDTH - RIGHT)
    height = ROW_STEP * len(columns) + ROW_GAP
    series = tuple(
        Series(dots.name, dots.role, SHAPES[dots.role], tuple(_dots(dots, rows, axis, place, height, show)))
        for place, dots in enumerate(columns)
    )
    names = tuple(Tick(round(TOP + height * (row + 0.5), 1), name) for row, name in enumerate(rows))
    return Chart(
        title, caption, x, "", 2 * WIDTH, TOP + height * len(rows) + BOTTOM, row_left, axis.ticks(_short_of(show)), (), series,
        names, None if reference is None else axis.at(reference), tuple(TOP + height * row for row in range(1, len(rows))),
    )  # fmt: skip


def _dots(dots: Dots, rows: Sequence[str], axis: _Axis, place: int, height: int, show: Words) -> Iterable[Mark]:
    for row, (name, found) in enumerate(zip(rows, dots.values, strict=True)):
        if found is None or found["value"] is None:
            continue
        ends = [None if found[end] is None else axis.at(found[end]) for end in ("low", "high")]
        y = TOP + height * row + ROW_GAP / 2 + ROW_STEP * (place + 0.5)
        interval = _interval(found["low"], found["high"], show)
        yield Mark(axis.at(found["value"]), round(y, 1), name, show(found["value"]), interval, *ends)


# ---------------------------------------------------------------------------------------------------------- axes


@dataclass(frozen=True)
class _Axis:
    """low..high in data units on first..last in pixels; where both are one value, it stands in the middle."""

    low: float
    high: float
    first: float
    last: float

    @classmethod
    def of(cls, values: Sequence[float], first: float, last: float, margin: float) -> _Axis:
        low, high = min(values), max(values)
        return cls(low - margin * (high - low), high + margin * (high - low), first, last)

    def at(self, value: float) -> float:
        length = self.high - self.low
        share = (min(max(value, self.low), self.high) - self.low) / length if length else 0.5
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self, words: Words) -> tuple[Tick, ...]:
        values = ticks(self.low, self.high, 5) if self.high > self.low else [self.low]
        return tuple(Tick(self.at(value), words(value)) for value in values)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within low..high, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(count * step, 12) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def _short_of(show: Words) -> Words:
    """Labels of ticks: the unit stands in the title of the axis."""
    return (lambda value: f"{100 * value:.4g}") if show in (percentage, points) else number


def _interval(low: float | None, high: float | None, show: Words) -> str:
    return "" if low is None or high is None else f"{show(low)} .. {show(high)}"


def _path(points: Iterable[tuple[float, float | None]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
