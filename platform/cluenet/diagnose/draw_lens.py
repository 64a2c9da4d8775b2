"""Figure `lens`: CCR@k by layer with its controls, and what the layers say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from cluenet.diagnose.style import CHANCE, RIGHT, WRONG, figure_of, save, shortened
from cluenet.report.palette import LIGHT
from cluenet.report.pictures import frame_numbers

MOST_LAYERS = 8
"""Rows of a table, evenly spread over the depth, the first and the last among them."""
WORDS = 3
"""Of a cell."""


def draw_lens(block: Mapping[str, Any], folder: Path) -> list[str]:
    with figure_of(7.2, 2.6 + 0.2 * (min(block["layers"], MOST_LAYERS) + 3)) as figure:
        (rates, shares), (every, single) = figure.subplots(2, 2, height_ratios=(1.35, 1))
        _rates(rates, block["ccr"])
        _shares(shares, block["ccr"])
        _table(every, "First words of the tokens, in % of them: all clips", block["words"], ())
        one = block["examples"][0]
        _table(
            single,
            f"Of one clue: “{shortened(one['clue'], 24)}” (bold: its words)",
            one["layers"],
            one["said"],
        )
        return save(figure, folder, "lens")


def _rates(axes: Axes, ccr: Sequence[Mapping[str, Any]]) -> None:
    for k, style, marker in _by_k(ccr):
        rows = [row for row in ccr if row["k"] == k]
        _curve(axes, rows, "rate", RIGHT, style, marker, f"CCR@{k}")
        layers, chances = [row["layer"] for row in rows], [100 * row["chance"] for row in rows]
        axes.plot(layers, chances, color=CHANCE, linestyle=style, linewidth=1, label=f"{k} random word{'s' * (k > 1)}")
    _frame(axes, ccr, "clue words named in their box (%)", "Does a token of the box name the clue?")


def _shares(axes: Axes, ccr: Sequence[Mapping[str, Any]]) -> None:
    for k, style, marker in _by_k(ccr):
        rows = [row for row in ccr if row["k"] == k]
        _curve(axes, rows, "tokens", RIGHT, style, marker, f"inside, top {k}")
        _curve(axes, rows, "elsewhere", WRONG, style, marker, f"outside, top {k}")
    _frame(axes, ccr, "visual tokens that name it (%)", "And do the others not?")


def _by_k(ccr: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    return list(zip(dict.fromkeys(row["k"] for row in ccr), ("-", "--"), ("o", "^")))


def _curve(
    axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, colour: str, style: str, marker: str, label: str
) -> None:
    known = [(row["layer"], row[name]) for row in rows if row[name]["value"] is not None]
    layers, values = [layer for layer, _ in known], [100 * found["value"] for _, found in known]
    axes.plot(layers, values, color=colour, linestyle=style, marker=marker, markersize=4, label=label)
    banded = [(layer, found) for layer, found in known if found["low"] is not None]
    ends = ([100 * found[end] for _, found in banded] for end in ("low", "high"))
    axes.fill_between([layer for layer, _ in banded], *ends, color=colour, alpha=0.15, linewidth=0)


def _frame(axes: Axes, ccr: Sequence[Mapping[str, Any]], unit: str, title: str) -> None:
    layers = sorted({row["layer"] for row in ccr})
    axes.set(xlabel="after decoder layer", ylabel=unit, xticks=_spread(layers))
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.set_title(title)
    axes.legend(loc="upper center", ncols=2)


def _spread(layers: Sequence[int]) -> list[int]:
    return [layers[number] for number in frame_numbers(len(layers), MOST_LAYERS)]


# ---------------------------------------------------------------------------------------------------- in words


def _table(axes: Axes, title: str, layers: Sequence[Mapping[str, Any]], said: Sequence[str]) -> None:
    """said: words that are set in bold."""
    rows = _spread([row["layer"] for row in layers])
    cells = [[str(n), _cell(layers[n - 1]["inside"]), _cell(layers[n - 1]["outside"])] for n in rows]
    table = axes.table(
        cells, colLabels=["layer", "inside the box", "outside"], colWidths=(0.12, 0.46, 0.42), cellLoc="left", loc="upper center",
        edges="horizontal",
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(6.5)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor(LIGHT.line)
        cell.PAD = 0.03
        words = layers[rows[row - 1] - 1]["inside" if column == 1 else "outside"][:WORDS] if row and column else []
        if row == 0 or any(word in said for word, _ in words):
            cell.set_text_props(weight="bold", ha="left")
    axes.set_title(title)
    axes.axis("off")


def _cell(words: Sequence[tuple[str, float]]) -> str:
    return ",  ".join(f"{shortened(word, 10)} {100 * share:.0f}" for word, share in words[:WORDS])
