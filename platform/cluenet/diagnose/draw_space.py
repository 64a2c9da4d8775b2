"""Figure `space`: where questions, options, clues and visual tokens lie, and how near they are to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from cluenet.diagnose.style import RIGHT, WRONG, figure_of, save
from cluenet.report.palette import LIGHT

LOOKS = {
    "question": ("questions", LIGHT.none, "D"), "option": ("options", LIGHT.baseline, "s"), "clue": ("clues", LIGHT.own, "o"),
    "inside": ("visual tokens on boxes", LIGHT.oracle, "^"), "outside": ("other visual tokens", LIGHT.noise, "x"),
}  # fmt: skip
NAMES = {
    "clue_question": "clue – question", "clue_answer": "clue – right option", "clue_wrong": "clue – wrong options",
    "question_answer": "question – right option", "clue_inside": "clue – tokens on boxes",
    "clue_outside": "clue – other tokens",
}  # fmt: skip


def draw_space(block: Mapping[str, Any], folder: Path) -> list[str]:
    with figure_of(7.2, 5.4) as figure:
        axes = figure.subplot_mosaic([["pca", "tsne"], ["near", "near"]], height_ratios=(1.9, 1))
        first, second = (100 * share for share in block["explained"])
        _map(axes["pca"], block["points"], "pca", "PCA")
        axes["pca"].set(xlabel=f"component 1 ({first:.0f} % of the variance)", ylabel=f"component 2 ({second:.0f} %)")
        _map(axes["tsne"], block["points"], "tsne", "t-SNE")
        axes["tsne"].set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        figure.legend(*axes["pca"].get_legend_handles_labels(), loc="outside upper center", ncols=5)
        _near(axes["near"], block["proximity"], block["clues"])
        return save(figure, folder, "space")


def _map(axes: Axes, points: Sequence[Mapping[str, Any]], name: str, title: str) -> None:
    for role, (label, colour, marker) in LOOKS.items():
        mine = [point for point in points if point["role"] == role]
        places, sizes = [point[name] for point in mine], [12 + 6 * min(point["count"], 10) ** 0.5 for point in mine]
        if mine:
            axes.scatter(*zip(*places), s=sizes, c=colour, marker=marker, alpha=0.75, linewidths=0.6, label=label)
    axes.set_title(title)


def _near(axes: Axes, found: Mapping[str, Any], clues: str) -> None:
    pairs = [pair for pair in NAMES if pair in found]
    for place, pair in enumerate(pairs):
        for shift, group, colour, marker in ((-0.15, "right", RIGHT, "o"), (0.15, "wrong", WRONG, "s")):
            _whisker(axes, place + shift, found[pair][group], colour, marker)
    axes.set(
        yticks=range(len(pairs)), yticklabels=[NAMES[pair] for pair in pairs], xlabel="mean cosine (95 % interval)"
    )
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.axvline(0, color=LIGHT.soft, linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.set_title(f"How near {clues} clues are: right (●) and wrong (■) answers")


def _whisker(axes: Axes, place: float, found: Mapping[str, Any], colour: str, marker: str) -> None:
    if found["value"] is None:
        return
    if found["low"] is not None:
        axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=1.4)
    axes.plot([found["value"]], [place], marker=marker, color=colour, markersize=5)
