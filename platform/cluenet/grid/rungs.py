"""Where runs of a grid are paused and compared, with `asha` in its file, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from cluenet.errors import Problem
from cluenet.grid.spec import Asha

if TYPE_CHECKING:
    from cluenet.grid.cells import Cell
    from cluenet.grid.graph import Graph, Key, Place
    from cluenet.recipe import Recipe

VALIDATION = ("data.validation", "train.validation.max_clips")
"""What is asked in validation."""


@dataclass(frozen=True)
class Point:
    """A trial of a bracket: a training stage that has come to a rung. Runs that share the stage share it.

    step: optimiser steps of this stage. steps: of the run, stage 1 and stage 2 together.
    """

    key: Key
    step: int
    steps: int


def steps_of(recipe: Recipe) -> int:
    """Optimiser steps of a run that nothing ends before."""
    return recipe.train.stage1.steps + recipe.train.stage2.steps


def rungs_of(asha: Asha, most: int) -> list[int]:
    """Steps at which runs of `most` steps are compared: first, first x eta, first x eta^2, ..., before their end."""
    return list(takewhile(lambda steps: steps < most, (asha.first * asha.eta**k for k in count())))


def points_of(asha: Asha, recipe: Recipe, keys: Sequence[Key]) -> tuple[Point, ...]:
    """The rungs of a run with these steps, the lowest first."""
    first, by_step = recipe.train.stage1.steps, dict(keys)
    found = []
    for steps in rungs_of(asha, steps_of(recipe)):
        stage, step = ("stage1", steps) if steps <= first else ("stage2", steps - first)
        found.append(Point((stage, by_step[stage]), step, steps))
    return tuple(found)


def points_by_place(asha: Asha, graph: Graph) -> dict[Place, tuple[Point, ...]]:
    return {place: points_of(asha, graph.plans[place].recipe, keys) for place, keys in graph.runs.items()}


def by_rung(points: Sequence[tuple[Point, ...]]) -> list[list[Point]]:
    """The different ones of each rung, in the order of the grid."""
    return [
        list(dict.fromkeys(one[rung] for one in points if len(one) > rung))
        for rung in range(max(map(len, points), default=0))
    ]


# ------------------------------------------------------------------------------------------------- what is wrong


def asha_problems(asha: Asha | None, cells: Sequence[Cell]) -> Iterator[Problem]:
    """Where cells cannot be compared, or not at the first rung; one cell is named for each kind."""
    if asha is None:
        return
    if (most := max(steps_of(cell.recipe) for cell in cells)) <= asha.first:
        yield Problem("asha.first", f"is {asha.first}, and no cell is trained for more than {most} steps, so that none would be stopped. Lower it, or remove asha")  # fmt: skip
    for cell in [cell for cell in cells if cell.recipe.train.validation.every > asha.first][:1]:
        every = cell.recipe.train.validation.every
        yield Problem("asha.first", f"is {asha.first}, but cell {cell.name!r} is first validated after {every} steps (train.validation.every). "
                      f"Raise it to {every} or more, or validate more often")  # fmt: skip
    silent = [cell.name for cell in cells if not cell.recipe.data.validation]
    for name in silent[:1]:
        yield Problem(
            "asha", f"cell {name!r} has no data.validation, so that nothing is compared at a rung. Name a dataset there"
        )
    for cell in [cell for cell in cells if not silent and _asked(cell) != _asked(cells[0])][:1]:
        yield Problem("asha", f"cell {cell.name!r} is validated on other questions than {cells[0].name!r}, so that they cannot be ranked. "
                      f"Set {' and '.join(VALIDATION)} under `set`, for all cells")  # fmt: skip


def _asked(cell: Cell) -> list[Any]:
    data, validation = cell.recipe.data, cell.recipe.train.validation
    return [validation.max_clips, *(entry.to_dict() for entry in data.validation)]
