"""The cells of a grid: one recipe per combination of values and seed, and everything that is wrong with them, at once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluenet.errors import Problem, RecipeError
from cluenet.grid.checks import axis_problems, cell_problems, exclude_problems, leaves_of, override_problems
from cluenet.grid.combine import combinations_of, name_of, setting_of
from cluenet.grid.rungs import asha_problems
from cluenet.grid.spec import Axis, GridSpec, Value, axes_of, read_spec
from cluenet.recipe import Recipe, assign, override, read_values
from cluenet.records import content_hash


@dataclass(frozen=True)
class Cell:
    """One combination of values. recipes: by seed, in the order of `seeds`."""

    name: str
    values: Mapping[str, Value]  # by axis
    recipes: Mapping[int, Recipe]
    evaluation: str = "evaluation"  # folder of its scores in its runs, which may be those of other cells too

    @property
    def recipe(self) -> Recipe:
        """Of its first seed."""
        return next(iter(self.recipes.values()))


@dataclass(frozen=True)
class Grid:
    """`cells`: the reference first."""

    spec: GridSpec
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    file: str

    @property
    def folder(self) -> Path:
        """Where grid.json, grid.csv and grid.html are."""
        return Path(self.cells[0].recipe.runs).expanduser().absolute() / "grids" / self.spec.name

    @property
    def plugins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.recipe.plugins))


def load(path: str | Path, overrides: Sequence[str] = ()) -> Grid:
    """The grid in a file. overrides: `key.path=value` of recipes, in all cells.

    Raises RecipeError with every problem of the grid, and of the recipes that it makes; PluginError.
    """
    file = Path(path)
    spec = read_spec(file)
    axes = axes_of(spec)
    problems = [*axis_problems(spec, axes), *exclude_problems(spec, axes), *override_problems(axes, overrides)]
    try:
        base = _base(spec, file, overrides)
    except RecipeError as error:
        raise RecipeError(str(file), [*problems, *(_of_base(error, problem) for problem in error.problems)]) from None
    cells, wrong = _cells(spec, axes, base)
    problems += wrong or [*cell_problems(spec, cells), *asha_problems(spec.asha, cells)]
    if problems:
        raise RecipeError(str(file), list(dict.fromkeys(problems)))
    return Grid(spec, tuple(axes), tuple(cells), str(file))


# ------------------------------------------------------------------------------------------------------- making


def _base(spec: GridSpec, file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Values of the base recipe, with what is set for all cells. Raises RecipeError where there can be none."""
    values = copy.deepcopy(read_values(file.parent / spec.base))
    for path, value in spec.set.items():
        assign(values, path, value, file="set")
    for text in overrides:
        override(values, text)
    return values


def _of_base(error: RecipeError, problem: Problem) -> Problem:
    if error.file == "set":
        return Problem(f"set.{problem.path}", problem.message)
    return Problem("base", f"{error.file}: {problem}")


def _cells(spec: GridSpec, axes: Sequence[Axis], base: Mapping[str, Any]) -> tuple[list[Cell], list[Problem]]:
    """And what is wrong with the recipes of those that cannot be made."""
    cells: list[Cell] = []
    wrong: list[tuple[dict[str, Value], str, Problem]] = []
    every = list(combinations_of(spec, axes))
    for values in every:
        name = name_of(spec, axes, values)
        try:
            recipe = _recipe(base, values, name)
        except RecipeError as error:
            wrong += [(values, name, problem) for problem in error.problems]
            continue
        recipes = {seed: recipe.model_copy(update={"seed": seed}) for seed in spec.seeds}
        folder = _evaluation(recipe, cells[0].recipe if cells else recipe)
        cells.append(Cell(name, values, recipes, folder))
    times = Counter(problem for _, _, problem in wrong)
    everywhere = {problem for problem, count in times.items() if count == len(every)}
    return cells, [_placed(spec, *one, everywhere=one[2] in everywhere) for one in wrong]


def _evaluation(recipe: Recipe, reference: Recipe) -> str:
    mine, usual = (leaves_of(one, scoring=True) for one in (recipe, reference))
    return "evaluation" if mine == usual else f"evaluation-{content_hash(mine)[:8]}"


def _recipe(base: Mapping[str, Any], values: Mapping[str, Value], name: str) -> Recipe:
    changed = copy.deepcopy(dict(base))
    for value in values.values():
        for path, setting in value.settings.items():
            assign(changed, path, copy.deepcopy(setting), file=name)
    return Recipe.from_dict(changed, file=name)


def _placed(spec: GridSpec, values: Mapping[str, Value], name: str, problem: Problem, *, everywhere: bool) -> Problem:
    """A recipe's problem at the value that sets what is wrong; else at what all cells have, or with the cell's name."""
    for value in values.values():
        if setting_of(problem.path, value.settings):
            return Problem(value.place, str(problem))
    if not everywhere:
        return Problem("", f"cell {name!r}: {problem}")
    path = setting_of(problem.path, spec.set)
    return Problem(f"set.{path}" if path else "base", str(problem) if path else f"{spec.base}: {problem}")
