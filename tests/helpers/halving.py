"""Grids with asha whose steps nobody does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluenet.grid.account import Account
from cluenet.grid.brackets import Brackets
from cluenet.grid.cells import Grid
from cluenet.grid.demand import Demand
from cluenet.grid.execute import Execution
from cluenet.grid.graph import Key, graph_of
from cluenet.grid.halving import Halving
from helpers.evaluation import Silent
from helpers.grids import grid_of
from helpers.pools import Training

EIGHT = {"train.stage1.lr": [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008]}
ASHA = {"first": 1, "eta": 2}
"""Rungs at 1, 2 and 4 of 6 steps; the last one is the end of stage 1."""


def asha_grid(folder: Path, **values: Any) -> Grid:
    settings = {"train.validation.every": 1, **values.pop("set", {})}
    return grid_of(folder, **{"axes": EIGHT, "asha": ASHA, "set": settings, **values})


class Trained:
    """A grid worked through by `Training`. qualities: of its cells, by name; cells that share a stage have that of the first."""

    def __init__(self, grid: Grid, qualities: dict[str, float], pool: Training | None = None, room: float = 1):
        self.grid, self.graph = grid, graph_of(grid)
        accuracies: dict[Key, float] = {}
        for (cell, _), keys in self.graph.runs.items():
            for key in keys:
                accuracies.setdefault(key, qualities[cell])
        self.pool = pool or Training(Demand(room, 0), {})
        self.pool.accuracies = accuracies
        self.brackets = Brackets(self.graph, grid.spec.asha, grid.folder)
        self.halving = Halving(self.brackets, self.pool.score)

    def run(self) -> Trained:
        account = Account(self.grid.folder)
        Execution(self.graph, self.pool, account, retries=0, halving=self.halving).run("test", Silent)
        return self

    def pauses(self, cell: str, stage: str, seed: int = 0) -> list[int | None]:
        """Where the stage of a run was left, each time that it was started."""
        key = next(key for key in self.graph.runs[cell, seed] if key[0] == stage)
        return [pause for started, pause in self.pool.starts if started == key]

    def evaluated(self, seed: int = 0) -> list[str]:
        started = {key for key, _ in self.pool.starts}
        return [cell for (cell, other), keys in self.graph.runs.items() if other == seed and keys[-1] in started]


def worse_and_worse(grid: Grid) -> dict[str, float]:
    return {cell.name: 0.9 - 0.1 * place for place, cell in enumerate(grid.cells)}


def better_and_better(grid: Grid) -> dict[str, float]:
    return {cell.name: 0.1 * place for place, cell in enumerate(grid.cells)}


def records(grid: Grid) -> list[dict[str, Any]]:
    """Of asha.json."""
    return json.loads((grid.folder / "asha.json").read_text())["rungs"]
