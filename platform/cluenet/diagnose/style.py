"""How figures for papers look, and how they are written: PNG and SVG with text as text, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluenet.folders import atomic_write_bytes
from cluenet.report.palette import LIGHT

DPI = 160
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 7,
    "svg.fonttype": "none", "svg.hashsalt": "cluenet", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": LIGHT.soft, "axes.labelcolor": LIGHT.ink, "text.color": LIGHT.ink, "xtick.color": LIGHT.ink,
    "ytick.color": LIGHT.ink, "axes.grid": True, "grid.color": LIGHT.line, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.titlelocation": "left", "legend.frameon": False, "lines.linewidth": 1.6,
}  # fmt: skip
RIGHT, WRONG, CHANCE = LIGHT.own, LIGHT.baseline, LIGHT.none
"""Colours of rightly and wrongly answered questions, and of what chance gives. Line styles and words say it too."""


@contextmanager
def figure_of(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches; drawn on and saved inside the block."""
    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained", facecolor=LIGHT.paper)


def save(figure: Figure, folder: Path, name: str) -> list[str]:
    """Writes `name`.png and `name`.svg; returns their names. Raises StorageError."""
    names = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": "cluenet diagnose"})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata, bbox_inches="tight", pad_inches=0.05)
        names.append(atomic_write_bytes(folder / f"{name}.{kind}", buffer.getvalue()).name)
    return names


def whisker(axes: Axes, place: float, estimate: Mapping[str, Any], *, colour: str, marker: str) -> None:
    """An estimate with its interval, in percent, on a horizontal scale."""
    if estimate["value"] is None:
        return
    if estimate["low"] is not None:
        axes.plot([100 * estimate["low"], 100 * estimate["high"]], [place, place], color=colour, linewidth=1.4)
    axes.plot([100 * estimate["value"]], [place], marker=marker, color=colour, markersize=6)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
