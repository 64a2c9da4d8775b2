"""Stretches of horizontal tracks, in percent of their width: time lines and bars."""

from __future__ import annotations

from dataclasses import dataclass


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
