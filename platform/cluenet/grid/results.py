"""What a grid found, from the folders of its runs alone: the same folders give the same bytes.

    grid.json   {grid, mode, seeds, axes, asha, test_sets, cells, effects, types, resamples}
    grid.csv    a line per cell and test set

A cell is {name, values, state, runs, sets}. Its state is `finished`, `partial` (some seeds lack), `failed`, `stopped` (by asha, see
`grid.brackets`) or `not run`; runs: {seed, folder, state, why}. asha: {first, eta, rungs} or null. sets, by test set: accuracy {value, low, high, n} over its seeds with their own `accuracies`, tokens
(visual ones and clue words that the answer pass reads, per question), seconds_per_question, `pareto` (no other cell is at least as good in
all three and better in one), and `difference` to the reference: a row of `cluenet compare` (`evaluate.compare.Row`), or null
where `refused` says why there is none. effects: see `grid.effects`. types: rows by question type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from cluenet.evaluate.arms import Arm, EvaluatedRun, differences
from cluenet.evaluate.compare import ALL, Row, corrected, rights, rows_of
from cluenet.evaluate.files import read_results
from cluenet.grid.account import Account
from cluenet.grid.brackets import Brackets
from cluenet.grid.cells import Cell, Grid
from cluenet.grid.effects import effects
from cluenet.grid.graph import Graph
from cluenet.metrics.arms import RESAMPLES, mean_accuracy
from cluenet.plain import rounded

FINISHED, PARTIAL, FAILED, STOPPED, NOT_RUN = "finished", "partial", "failed", "stopped", "not run"


@dataclass(frozen=True)
class SeedRun:
    """One cell with one seed. evaluated: its finished evaluation. why: what it failed of, or was stopped for."""

    seed: int
    folder: str
    state: str
    why: str = ""
    evaluated: EvaluatedRun | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "folder": self.folder, "state": self.state, "why": self.why}


@dataclass(frozen=True)
class CellResult:
    """refused: why it cannot be compared with the reference. rows: its comparison, by test set and question type."""

    cell: Cell
    runs: tuple[SeedRun, ...]
    refused: str = ""
    rows: tuple[Row, ...] = field(default=())

    @cached_property
    def arm(self) -> Arm:
        """Its finished runs."""
        return Arm(self.cell.name, tuple(run.evaluated for run in self.runs if run.evaluated is not None))

    @property
    def state(self) -> str:
        states = {run.state for run in self.runs}
        if len(states) == 1:
            return states.pop()
        return PARTIAL if FINISHED in states else FAILED if FAILED in states else NOT_RUN

    @property
    def sets(self) -> list[str]:
        return list(self.arm.runs[0].sets) if self.arm.runs else []


def collect(grid: Grid, graph: Graph, account: Account, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The content of grid.json. graph: of all cells. Raises DataError for an evaluation that cannot be read."""
    brackets = Brackets(graph, grid.spec.asha, grid.folder)
    found = [_cell_result(cell, brackets, account) for cell in grid.cells]
    results = compared(found, grid.spec.across_frames, resamples)
    names = results[0].sets or next((one.sets for one in results if one.sets), [])
    cells = [_cell(one, resamples) for one in results]
    for name in names:
        _mark_pareto([cell["sets"][name] for cell in cells if name in cell["sets"]])
    content: dict[str, Any] = rounded({
        "grid": grid.spec.name, "mode": grid.spec.mode, "seeds": list(grid.spec.seeds),
        "axes": {axis.name: [value.label for value in axis.values] for axis in grid.axes}, "asha": brackets.to_dict(),
        "test_sets": names, "cells": cells, "effects": effects(grid, results, resamples),
        "types": [row.to_dict() for one in results for row in one.rows if row.type != ALL], "resamples": resamples,
    })  # fmt: skip
    return content


def _cell_result(cell: Cell, brackets: Brackets, account: Account) -> CellResult:
    return CellResult(cell, tuple(_seed_run(cell, seed, brackets, account) for seed in cell.recipes))


def _seed_run(cell: Cell, seed: int, brackets: Brackets, account: Account) -> SeedRun:
    plan = brackets.graph.plans[cell.name, seed]
    scored = [step for step in plan.steps() if step.name == "evaluate"]
    if scored and all(step.state == "finished" for step in scored):
        evaluated = EvaluatedRun(plan.run, [step.folder for step in scored])
        return SeedRun(seed, plan.run.name, FINISHED, evaluated=evaluated)
    if why := brackets.stopped((cell.name, seed)):
        return SeedRun(seed, plan.run.name, STOPPED, why)
    errors = ((key[0], account.error(key)) for key in brackets.graph.runs[cell.name, seed])
    why = next((f"{step}: {error}" for step, error in errors if error), "")
    return SeedRun(seed, plan.run.name, FAILED if why else NOT_RUN, why)


# ---------------------------------------------------------------------------------------------------- comparison


def compared(results: Sequence[CellResult], across_frames: bool, resamples: int) -> list[CellResult]:
    """Every cell against the first one, with Holm's correction over all of them."""
    reference, *others = results
    found = [reference, *(_against(reference, one, across_frames, resamples) for one in others)]
    rows = iter(corrected([row for one in found for row in one.rows]))
    return [CellResult(one.cell, one.runs, one.refused, tuple(next(rows) for _ in one.rows)) for one in found]


def _against(reference: CellResult, one: CellResult, across_frames: bool, resamples: int) -> CellResult:
    if not one.arm.runs:
        return one
    if not reference.arm.runs:
        return CellResult(one.cell, one.runs, "the reference has no result")
    first, *seeds = reference.arm.runs
    pairs = ((first, run) for run in (*seeds, *one.arm.runs))
    problems = [problem for pair in pairs for problem in differences(*pair, across_frames=across_frames)]
    if problems:
        return CellResult(one.cell, one.runs, "; ".join(problems))
    return CellResult(one.cell, one.runs, rows=tuple(rows_of(reference.arm, one.arm, resamples)))


# --------------------------------------------------------------------------------------------------------- cells


def _cell(one: CellResult, resamples: int) -> dict[str, Any]:
    return {
        "name": one.cell.name, "values": {axis: value.label for axis, value in one.cell.values.items()}, "state": one.state,
        "runs": [run.to_dict() for run in one.runs], "sets": {name: _set(one, name, resamples) for name in one.sets},
    }  # fmt: skip


def _set(one: CellResult, name: str, resamples: int) -> dict[str, Any]:
    samples, known = one.arm.runs[0].samples[name], one.arm.known(name)
    right_SN = rights(one.arm, name, [[key] for key in known])
    accuracy = mean_accuracy(right_SN, [samples[key]["video"] for key in known], resamples=resamples)
    row = next((row for row in one.rows if (row.test_set, row.type) == (name, ALL)), None)
    return {
        "accuracy": accuracy.to_dict(), "accuracies": [float(value) for value in right_SN.mean(1)] if known else [],
        **_costs(one.arm, name), "difference": row and row.to_dict(), "refused": one.refused,
    }  # fmt: skip


def _costs(arm: Arm, name: str) -> dict[str, float]:
    """Means over the runs."""
    tokens = [read_results(run.sets[name])["tokens"] for run in arm.runs]
    return {
        "tokens": fmean((found["seen"] or 0) + (found["clue_words"] or 0) for found in tokens),
        "seconds_per_question": fmean(run.manifests[name]["seconds_per_question"] for run in arm.runs),
    }


def _mark_pareto(cells: Sequence[dict[str, Any]]) -> None:
    """Which are best for some wish: more right answers, fewer tokens, less time."""
    costs = [(-(cell["accuracy"]["value"] or 0.0), cell["tokens"], cell["seconds_per_question"]) for cell in cells]
    for cell, mine in zip(cells, costs):
        cell["pareto"] = not any(other != mine and all(o <= m for o, m in zip(other, mine)) for other in costs)
