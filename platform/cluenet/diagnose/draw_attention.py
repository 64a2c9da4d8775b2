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
from cluenet.report.palette import LIGHT
from cluenet.report.pictures import frame_numbers, nearest

MOST_BLOCKS = 8
TILE = 120
"""Pixels of a frame's height in the figure."""
GAP = 6
HEAT = "cividis"
"""Even in brightness, and the same to readers with colour blindness (Nuñez et al. 2018)."""

FramesOf = Callable[[str], Frames]


def draw_attention(block: Mapping[str, Any], frames_of: FramesOf, folder: Path) -> list[str]:
    """A row per example: its frames, and below them the attention; boxes are where the labelled clues are."""
    rows = block["examples"]
    with figure_of(7.2, 0.5 + 1.95 * len(rows)) as figure:
        for axes, row in zip(np.ravel(figure.subplots(len(rows), 1)), rows):
            _strip(axes, row, frames_of(row["clip"]))
        scale = ScalarMappable(Normalize(0, 100), HEAT)
        bar = figure.colorbar(scale, ax=figure.axes, shrink=0.4, aspect=30, pad=0.01)
        bar.set_label("attention to a visual token (% of the clip's highest)")
        return save(figure, folder, "attention")


def _strip(axes: Axes, row: Mapping[str, Any], frames: Frames) -> None:
    blocks = shown_blocks(row)
    pictures = [_resized(frames.frames_THWC[nearest(frames.seconds_T.tolist(), row["seconds"][b])]) for b in blocks]
    heats = [_heat(row, block, pictures[0].shape[1]) for block in blocks]
    axes.imshow(np.concatenate([_joined(pictures), _between(pictures), _joined(heats)]), interpolation="nearest")
    width = pictures[0].shape[1] + GAP
    for column, block in enumerate(blocks):
        for box in (box for box in row["boxes"] if nearest(row["seconds"], box["seconds"]) == block):
            _outline(axes, box, column * width, pictures[0].shape[1])
    axes.set_xticks([column * width + width / 2 for column in range(len(blocks))])
    axes.set_xticklabels([f"{row['seconds'][block]:.1f} s" for block in blocks])
    axes.tick_params(length=0)
    axes.set(yticks=[TILE / 2, TILE * 1.5 + GAP], yticklabels=["frame", "attention"])
    axes.set_title(_caption(row), fontsize=7.5)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def shown_blocks(row: Mapping[str, Any]) -> list[int]:
    """At most MOST_BLOCKS temporal blocks in order: the one that is looked at most, those with a box, others evenly spread."""
    blocks = row["shape"][0]
    peak = int(np.reshape(row["heat"], (blocks, -1)).max(1).argmax())
    wanted = set([peak, *(nearest(row["seconds"], box["seconds"]) for box in row["boxes"])][:MOST_BLOCKS])
    spread = (wanted | set(frame_numbers(blocks, most)) for most in range(MOST_BLOCKS, 1, -1))
    return sorted(next((found for found in spread if len(found) <= MOST_BLOCKS), wanted))


def _heat(row: Mapping[str, Any], block: int, width: int) -> np.ndarray:
    heat = np.reshape(row["heat"], row["shape"])
    colours = matplotlib.colormaps[HEAT](heat[block] / max(float(heat.max()), 1e-12))[..., :3]
    cells = Image.fromarray((255 * colours).round().astype(np.uint8))
    return np.asarray(cells.resize((width, TILE), Image.Resampling.NEAREST))


def _resized(frame_HWC: np.ndarray) -> np.ndarray:
    height, width = frame_HWC.shape[:2]
    size = (max(1, round(width * TILE / height)), TILE)
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.LANCZOS))


def _joined(tiles: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((TILE, GAP, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _between(tiles: Sequence[np.ndarray]) -> np.ndarray:
    return np.full((GAP, _joined(tiles).shape[1], 3), 255, np.uint8)


def _outline(axes: Axes, box: Mapping[str, float], left: float, width: float) -> None:
    """Dark and light, to be seen on anything, on the frame and on its attention."""
    for top in (0, TILE + GAP):
        corner = (left + box["x1"] * width - 0.5, top + box["y1"] * TILE - 0.5)
        size = ((box["x2"] - box["x1"]) * width, (box["y2"] - box["y1"]) * TILE)
        for colour, style, thick in (("white", "-", 2.2), (LIGHT.ink, "--", 1.0)):
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linestyle=style, linewidth=thick))


def _caption(row: Mapping[str, Any]) -> str:
    said, right = (_option(row, row[key]) for key in ("prediction", "answer"))
    verdict = f"Right: {said}" if row["correct"] else f"Wrong: {said}, not {right}"
    about = "Attention of the answer" if row["text"] == "answer" else f"Clue: {row['text']}"
    found = [] if row["pointing"] is None else [f"its peak is {'on' if row['pointing'] else 'off'} a labelled box"]
    if row["energy"] is not None:
        found.append(f"{100 * row['energy']:.0f} % in its box (evenly: {100 * row['energy_chance']:.0f} %)")
    question = shortened(row["asked"], 90)
    return "\n".join(
        [*textwrap.wrap(f"{verdict}. {question}", 110), f"{about}; {', '.join(found)}" if found else about]
    )


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
    axes.set(yticks=range(len(shown)), yticklabels=[names[name] for name in shown], xlabel=_unit(of), xlim=(0, 100))
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
    axes.set(xlabel="attention inside the labelled box (%)", ylabel=f"share of {what} with at most that", xlim=(0, 100))
    axes.set_title("How it is spread")
    axes.legend(loc="lower right")
