"""Figures `attention` (frames of a few questions with the heat over them) and `looking` (right against wrong in numbers)."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from PIL import Image

from cluenet.diagnose.style import CHANCE, RIGHT, WRONG, figure_of, save, shortened, whisker
from cluenet.records import Frames
from cluenet.report.palette import DARK
from cluenet.report.pictures import frame_numbers, nearest

MOST_BLOCKS = 8
TILE = 120
"""Pixels of a frame's height in the figure."""
GAP = 6
HEAT = "cividis"
"""Even in brightness, and the same to readers with colour blindness (Nuñez et al. 2018)."""

FramesOf = Callable[[str], Frames]


def draw_attention(block: Mapping[str, Any], frames_of: FramesOf, folder: Path) -> list[str]:
    """A panel per example: its frames, and below them where every clue looks; outlines are where the labelled clues are."""
    rows = block["examples"]
    heights = [1 + len(row["looks"]) for row in rows]
    with figure_of(7.2, 0.75 + sum(0.4 + 0.775 * height for height in heights)) as figure:
        panels = figure.subplots(len(rows), 1, height_ratios=heights)
        for axes, row in zip(np.ravel(panels), rows):
            _panel(axes, row, frames_of(row["clip"]))
        bar = figure.colorbar(
            ScalarMappable(Normalize(0, 100), HEAT), ax=figure.axes, location="bottom", shrink=0.5, aspect=40, pad=0.01
        )
        bar.set_label("attention to a visual token (% of the highest of its row)")
        return save(figure, folder, "attention")


def _panel(axes: Axes, row: Mapping[str, Any], frames: Frames) -> None:
    blocks, times = shown_blocks(row), frames.seconds_T.tolist()
    pictures = [_resized(frames.frames_THWC[nearest(times, row["seconds"][block])]) for block in blocks]
    width, strips = pictures[0].shape[1], [pictures]
    strips += [[_heat(row["shape"], look["heat"], block, width) for block in blocks] for look in row["looks"]]
    axes.imshow(_stacked([_stacked(tiles, axis=1) for tiles in strips], axis=0), interpolation="nearest")
    for column, block in enumerate(blocks):
        for box in (box for box in row["boxes"] if nearest(row["seconds"], box["seconds"]) == block):
            for strip in range(len(strips)):
                _outline(axes, box, column * (width + GAP), strip * (TILE + GAP), width)
    axes.set_xticks([column * (width + GAP) + width / 2 for column in range(len(blocks))])
    axes.set_xticklabels([f"{row['seconds'][block]:.1f} s" for block in blocks])
    axes.set_yticks([strip * (TILE + GAP) + TILE / 2 for strip in range(len(strips))])
    axes.set_yticklabels(["frame", *map(_side, row["looks"])], fontsize=6.5)
    axes.tick_params(length=0)
    axes.set_title(_caption(row), fontsize=7.5, color=RIGHT if row["correct"] else WRONG)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def shown_blocks(row: Mapping[str, Any]) -> list[int]:
    """At most MOST_BLOCKS temporal blocks in order: those that are looked at most, those with a box, others evenly spread."""
    blocks = row["shape"][0]
    peaks = [int(np.reshape(look["heat"], (blocks, -1)).max(1).argmax()) for look in row["looks"]]
    wanted = set([*peaks, *(nearest(row["seconds"], box["seconds"]) for box in row["boxes"])][:MOST_BLOCKS])
    spread = (wanted | set(frame_numbers(blocks, most)) for most in range(MOST_BLOCKS, 1, -1))
    return sorted(next((found for found in spread if len(found) <= MOST_BLOCKS), wanted))


def _heat(shape: Sequence[int], attention_N: Sequence[float], block: int, width: int) -> np.ndarray:
    heat = np.reshape(attention_N, shape)
    colours = matplotlib.colormaps[HEAT](heat[block] / max(float(heat.max()), 1e-12))[..., :3]
    cells = Image.fromarray((255 * colours).round().astype(np.uint8))
    return np.asarray(cells.resize((width, TILE), Image.Resampling.NEAREST))


def _resized(frame_HWC: np.ndarray) -> np.ndarray:
    height, width = frame_HWC.shape[:2]
    size = (max(1, round(width * TILE / height)), TILE)
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.LANCZOS))


def _stacked(tiles: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Beside each other (axis 1) or below, white between them."""
    shape = list(tiles[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=axis)


def _outline(axes: Axes, box: Mapping[str, float], left: float, top: float, width: float) -> None:
    """In the colour of labelled clues, on a dark line to be seen on anything."""
    corner = (left + box["x1"] * width - 0.5, top + box["y1"] * TILE - 0.5)
    size = ((box["x2"] - box["x1"]) * width, (box["y2"] - box["y1"]) * TILE)
    for colour, style, thick in ((DARK.paper, "-", 1.8), (DARK.oracle, (0, (3, 1.5)), 1.1)):
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linestyle=style, linewidth=thick))


def _side(look: Mapping[str, Any]) -> str:
    """What stands beside the attention of a clue: its words, and where it looks."""
    text = "\n".join(textwrap.wrap(shortened("answer" if look["text"] == "answer" else look["text"], 36), 18))
    if look["energy"] is None:
        return text
    where = "boxes" if look["text"] == "answer" else "its box"
    return f"{text}\n{100 * look['energy']:.0f} % in {where}\n(even: {100 * look['energy_chance']:.0f} %)"


def _caption(row: Mapping[str, Any]) -> str:
    said, right = (_option(row, row[key]) for key in ("prediction", "answer"))
    verdict = f"{said} (right)" if row["correct"] else f"{said} (wrong, it is: {right})"
    return "\n".join(textwrap.wrap(f"{shortened(row['asked'], 110)}  →  {verdict}", 105))


def _option(row: Mapping[str, Any], answer: int | str | None) -> str:
    if answer is None:
        return "no option"
    return shortened(row["options"][answer] if isinstance(answer, int) else answer, 40)


# ------------------------------------------------------------------------------------------------- in numbers


def draw_looking(block: Mapping[str, Any], folder: Path) -> list[str]:
    """Left: means with intervals. Right: how attention in the box is spread over clues."""
    with figure_of(7.2, 2.7) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        _means(left, block["scores"], block["of"])
        _spread(right, block["looks"], block["scores"], block["of"])
        return save(figure, folder, "looking")


def _means(axes: Axes, scores: Mapping[str, Any], of: str) -> None:
    names = {"pointing": "peak on a\nlabelled box", "energy_in_box": "attention\ninside the box"}
    shown = [name for name in names if name in scores]
    for place, name in enumerate(shown):
        score = scores[name]
        whisker(axes, place - 0.15, score["right"], colour=RIGHT, marker="o")
        whisker(axes, place + 0.15, score["wrong"], colour=WRONG, marker="s")
        chance = 100 * score["chance"]
        axes.plot([chance, chance], [place - 0.35, place + 0.35], color=CHANCE, linestyle=":")
    axes.set(yticks=range(len(shown)), yticklabels=[names[name] for name in shown], xlabel=_unit(of), xlim=(-1, 101))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_title("Right (●), wrong (■), chance (dotted)")


def _unit(of: str) -> str:
    return "% of stated clues, or of attention" if of == "clue" else "% of answers, or of attention"


def _spread(axes: Axes, looks: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], of: str) -> None:
    for verdict, colour, style, name in ((True, RIGHT, "-", "right answers"), (False, WRONG, "--", "wrong answers")):
        shares = sorted(100 * one["energy"] for one in looks if one["correct"] is verdict and one["energy"] is not None)
        if shares:
            axes.ecdf(shares, color=colour, linestyle=style, label=f"{name} (n = {len(shares)})")
    if "energy_in_box" in scores:
        axes.axvline(100 * scores["energy_in_box"]["chance"], color=CHANCE, linestyle=":", label="even attention")
    what = "clues" if of == "clue" else "answers"
    axes.set(
        xlabel="attention inside the labelled box (%)", ylabel=f"share of {what} with at most that", xlim=(-1, 101)
    )
    axes.set_title("How it is spread")
    axes.legend(loc="best")
