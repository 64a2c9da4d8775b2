"""Main effects: what a value of an axis does to accuracy, on average over all other axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cluenet.evaluate.arms import same_models
from cluenet.evaluate.compare import rights
from cluenet.grid.cells import Cell, Grid
from cluenet.grid.spec import Axis, Value
from cluenet.metrics.arms import bootstrap_p, draw_differences
from cluenet.metrics.inference import holm

if TYPE_CHECKING:
    from cluenet.grid.results import CellResult

Pair = tuple["CellResult", "CellResult"]
"""Two cells that differ in one axis alone: its reference value first."""


def effects(grid: Grid, results: Sequence[CellResult], resamples: int) -> list[dict[str, Any]]:
    """{axis, value, test_set, cells, difference, p_value, p_holm, tests} of every value but the first of its axis.

    The difference is that of mean accuracies over all `cells` pairs of cells that differ in this axis alone, those with the
    value minus those with the axis' first one; videos and seeds are drawn as in `metrics.arms.draw_differences`, cells are
    fixed. Only finished cells count. Holm's correction is over all effects. One factor at a time, the differences of the cells
    are the effects, and this is empty.
    """
    if grid.spec.mode != "product" or len(grid.axes) < 2:
        return []
    usable = {one.cell.name: one for one in results if one.state == "finished" and not one.refused}
    found = [effect for axis in grid.axes for effect in _of_axis(grid, axis, usable, resamples)]
    for effect, adjusted in zip(found, holm([effect["p_value"] for effect in found])):
        effect |= {"p_holm": adjusted, "tests": sum(one["p_value"] is not None for one in found)}
    return found


def _of_axis(grid: Grid, axis: Axis, usable: Mapping[str, CellResult], resamples: int) -> Iterator[dict[str, Any]]:
    for value in axis.values[1:]:
        pairs = list(_pairs(grid.cells, axis, value, usable))
        for name in pairs[0][0].sets if pairs else ():
            yield {
                "axis": axis.name,
                "value": value.label,
                "test_set": name,
                "cells": len(pairs),
                **_effect(pairs, name, resamples),
            }


def _pairs(cells: Sequence[Cell], axis: Axis, value: Value, usable: Mapping[str, CellResult]) -> Iterator[Pair]:
    for cell in (cell for cell in cells if cell.values[axis.name] is value):
        wanted = {**cell.values, axis.name: axis.reference}
        other = next((one for one in cells if one.values == wanted), None)
        if other is not None and {cell.name, other.name} <= set(usable):
            yield usable[other.name], usable[cell.name]


def _effect(pairs: Sequence[Pair], name: str, resamples: int) -> dict[str, Any]:
    first = pairs[0][0].arm
    samples, known = first.runs[0].samples[name], first.known(name)
    units, videos = [[key] for key in known], [samples[key]["video"] for key in known]
    before_SN, after_SN = (np.mean([rights(pair[side].arm, name, units) for pair in pairs], axis=0) for side in (0, 1))
    same = all(same_models(before.arm, after.arm, name) for before, after in pairs)
    draws_R = draw_differences(before_SN, after_SN, videos, resamples=resamples, seed=0, same_models=same)
    low, high = map(float, np.quantile(draws_R, (0.025, 0.975))) if len(draws_R) else (None, None)
    value = float(after_SN.mean() - before_SN.mean())
    return {
        "difference": {"value": value, "low": low, "high": high, "n": len(known)},
        "p_value": bootstrap_p(draws_R) if len(draws_R) else None,
    }  # fmt: skip
