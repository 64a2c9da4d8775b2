"""The steps of all cells of a grid, each one once: those of one address are one step, whoever needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cluenet.grid.cells import Cell, Grid
from cluenet.planning import Plan
from cluenet.recipe import Recipe

Key: TypeAlias = tuple[str, str]
"""(step, address). Features are told apart by what they are made from: their own address is known once that is there."""
Place: TypeAlias = tuple[str, int]
"""(name of the cell, seed)."""
NOT_HERE = ("report",)
"""Steps of a run that a grid does not do: it has a page of its own."""


@dataclass(frozen=True)
class Node:
    """One unique step. recipe: of the first run that needs it, in whose folder it is done. evaluation: the folder of scores in
    there. needs: what comes before. pause_at: the step of its stage at which it is left, to go on later."""

    key: Key
    recipe: Recipe
    evaluation: str
    folder: Path
    needs: tuple[Key, ...]
    finished: bool
    pause_at: int | None = None

    @property
    def step(self) -> str:
        return self.key[0]


@dataclass(frozen=True)
class Graph:
    """nodes: every one after those it needs. runs: the steps of each cell and seed, in order."""

    nodes: Mapping[Key, Node]
    runs: Mapping[Place, tuple[Key, ...]]
    plans: Mapping[Place, Plan]

    def left(self) -> list[Node]:
        return [node for node in self.nodes.values() if not node.finished]

    def counts(self) -> dict[str, dict[str, int]]:
        """By step: how many the runs ask for, how many different ones there are, how many of those are finished."""
        asked = [step for keys in self.runs.values() for step, _ in keys]
        return {
            step: {
                "asked": asked.count(step),
                "unique": sum(node.step == step for node in self.nodes.values()),
                "finished": sum(node.step == step and node.finished for node in self.nodes.values()),
            }
            for step in dict.fromkeys(asked)
        }


def graph_of(grid: Grid, cells: Sequence[Cell] | None = None) -> Graph:
    """Of some cells, or of all, with what is on disk now. Raises DataError and CheckpointError as `Plan` does."""
    nodes: dict[Key, Node] = {}
    runs, plans = {}, {}
    for seed in grid.spec.seeds:  # seed by seed, so that a grid that is stopped has all cells with some
        for cell in grid.cells if cells is None else cells:
            plan = plans[cell.name, seed] = Plan(cell.recipes[seed], evaluation=cell.evaluation)
            runs[cell.name, seed] = tuple(_add(nodes, plan, cell.evaluation))
    return Graph(nodes, runs, plans)


def _add(nodes: dict[Key, Node], plan: Plan, evaluation: str) -> Iterator[Key]:
    """The keys of a run's steps; those that are new become nodes."""
    before: list[Key] = []
    for step in plan.steps():
        if step.name in NOT_HERE or step.state == "off":
            continue
        key = (step.name, step.address or f"{len(before)} {plan.base.name}")
        needs = () if step.name == "prepare" else tuple(before)
        nodes.setdefault(key, Node(key, plan.recipe, evaluation, step.folder, needs, step.state == "finished"))
        before.append(key)
        yield key
