"""The cells of a grid: one recipe per combination of values and seed, and everything that is wrong with them, at once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from cluenet.decoding import FramePolicy
from cluenet.errors import Problem, RecipeError, suggestion
from cluenet.fingerprint import leaves
from cluenet.grid.spec import Axis, GridSpec, Value, axes_of, read_spec
from cluenet.recipe import Recipe, assign, override, read_values
from cluenet.records import content_hash

FRAMES = ("data.sampler", "data.size", "data.codec")
SCORING = ("evaluate", "data.test")
QUESTIONS = ("data.test", "evaluate.mode", "evaluate.seed", "evaluate.shuffles")
"""What is asked, and in which way: other settings of scoring may differ between cells."""


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
    problems = [*_axis_problems(spec, axes), *_exclude_problems(spec, axes), *_override_problems(axes, overrides)]
    try:
        base = _base(spec, file, overrides)
    except RecipeError as error:
        raise RecipeError(str(file), [*problems, *(_of_base(error, problem) for problem in error.problems)]) from None
    cells, wrong = _cells(spec, axes, base)
    problems += wrong or _cell_problems(spec, cells)
    if problems:
        raise RecipeError(str(file), list(dict.fromkeys(problems)))
    return Grid(spec, tuple(axes), tuple(cells))


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
    every = list(_combinations(spec, axes))
    for values in every:
        name = _name(spec, axes, values)
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
    mine, usual = (_leaves(one, scoring=True) for one in (recipe, reference))
    return "evaluation" if mine == usual else f"evaluation-{content_hash(mine)[:8]}"


def _combinations(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[dict[str, Value]]:
    """The reference first."""
    if spec.mode == "product":
        found = (dict(zip((axis.name for axis in axes), values)) for values in product(*(a.values for a in axes)))
    else:
        reference = {axis.name: axis.reference for axis in axes}
        others = ({**reference, axis.name: value} for axis in axes for value in axis.values[1:])
        found = (one for group in ([reference], others) for one in group)
    yield from (values for values in found if not any(_has(values, one) for one in spec.exclude))


def _has(values: Mapping[str, Value], partial: Mapping[str, Any]) -> bool:
    return bool(partial) and all(name in values and values[name].is_called(want) for name, want in partial.items())


def _recipe(base: Mapping[str, Any], values: Mapping[str, Value], name: str) -> Recipe:
    changed = copy.deepcopy(dict(base))
    for value in values.values():
        for path, setting in value.settings.items():
            assign(changed, path, copy.deepcopy(setting), file=name)
    return Recipe.from_dict(changed, file=name)


def _name(spec: GridSpec, axes: Sequence[Axis], values: Mapping[str, Value]) -> str:
    """filter=all layer=0.8; one factor at a time: the value that differs, or `reference`."""
    shown = [
        f"{short}={values[axis.name].label}"
        for axis, short in zip(axes, short_names(axes))
        if spec.mode == "product" or values[axis.name] is not axis.reference
    ]
    return " ".join(shown) or "reference"


def short_names(axes: Sequence[Axis]) -> list[str]:
    """The last word of a path, where no other axis ends in it."""
    lasts = [axis.name.rpartition(".")[2] for axis in axes]
    return [last if lasts.count(last) == 1 else axis.name for axis, last in zip(axes, lasts)]


def _placed(spec: GridSpec, values: Mapping[str, Value], name: str, problem: Problem, *, everywhere: bool) -> Problem:
    """A recipe's problem at the value that sets what is wrong; else at what all cells have, or with the cell's name."""
    for value in values.values():
        if _setting_of(problem.path, value.settings):
            return Problem(value.place, str(problem))
    if not everywhere:
        return Problem("", f"cell {name!r}: {problem}")
    path = _setting_of(problem.path, spec.set)
    return Problem(f"set.{path}" if path else "base", str(problem) if path else f"{spec.base}: {problem}")


def _setting_of(path: str, settings: Mapping[str, Any]) -> str | None:
    """The one of these settings that a path of a recipe belongs to, or that belongs to it."""
    return next((one for one in settings if f"{path}.".startswith(f"{one}.") or f"{one}.".startswith(f"{path}.")), None)


# ------------------------------------------------------------------------------------------------- what is wrong


def _axis_problems(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
    if not axes:
        yield Problem("axes", "nothing varies. Give a recipe path with its values here, or settings under `paired`")
    for axis in axes:
        labels = [value.label for value in axis.values]
        if len(labels) < 2:
            yield Problem(axis.place, f"has {len(labels)} value, so that nothing varies. Add one, or move it to `set`")
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            yield Problem(
                axis.place, f"has {label!r} twice. Remove one, or tell them apart: {{label: ..., value: ...}}"
            )
        if any("seed" in value.settings for value in axis.values):
            yield Problem(axis.place, "varies the seed. Write `seeds: [0, 1, 2]` at the top of the grid instead")
    if len(set(spec.seeds)) < len(spec.seeds):
        yield Problem("seeds", f"has a seed twice: {list(spec.seeds)}")
    yield from _conflicts(spec, axes)


def _conflicts(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
    """Settings that two values decide which can be in one cell; and what `set` says of an axis."""
    for one, other in combinations(axes, 2):
        for mine, theirs in product(one.values, other.values):
            if spec.mode == "one_factor" and mine is not one.reference and theirs is not other.reference:
                continue
            for path in theirs.settings:
                if twin := _setting_of(path, mine.settings):
                    yield Problem(
                        other.place, f"sets {path}, and {one.place} sets {twin}. Put both into one `paired` axis"
                    )
    for path, twin in product(spec.axes, spec.set):
        if f"{twin}.".startswith(f"{path}."):
            yield Problem(f"set.{twin}", f"is varied by axes.{path}. Remove it from one of the two")


def _exclude_problems(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
    known = {axis.name: axis for axis in axes}
    reference = {axis.name: axis.reference for axis in axes}
    for number, partial in enumerate(spec.exclude):
        place = f"exclude.{number}"
        for name, wanted in partial.items():
            if name not in known:
                yield Problem(f"{place}.{name}", f"no such axis. {suggestion(name, known)}")
            elif not any(value.is_called(wanted) for value in known[name].values):
                labels = [value.label for value in known[name].values]
                yield Problem(f"{place}.{name}", f"no value {wanted!r}. {suggestion(str(wanted), labels)}")
        if not partial or _has(reference, partial):
            yield Problem(
                place, "leaves out the reference (the first value of every axis), which others are compared with"
            )
    if spec.mode == "product" and len(axes) > 1:
        yield from _emptied(spec, axes)


def _emptied(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
    """Values that `exclude` leaves no cell with."""
    left = list(_combinations(spec, axes))
    for axis in axes:
        for value in axis.values:
            if not any(values[axis.name] is value for values in left):
                yield Problem(
                    value.place, f"{value.label!r} is in no cell: `exclude` leaves out all of them. Remove it"
                )


def _override_problems(axes: Sequence[Axis], overrides: Sequence[str]) -> Iterator[Problem]:
    for text in overrides:
        path = text.partition("=")[0]
        if path == "seed":
            yield Problem("seeds", "decides the seeds of all cells; the command line cannot set `seed`")
        for axis in axes:
            if any(_setting_of(path, value.settings) for value in axis.values):
                yield Problem(axis.place, f"varies what the command line sets: {text!r}. Leave out one of the two")


def _cell_problems(spec: GridSpec, cells: Sequence[Cell]) -> Iterator[Problem]:
    """What cells are to each other: the same, asked other questions, or seeing other frames."""
    known: dict[str, Cell] = {}
    for cell in cells:
        if _asked(cell) != _asked(cells[0]):
            yield Problem(_place(cell, QUESTIONS), f"cell {cell.name!r} is asked other questions than {cells[0].name!r}, or in another "
                          f"way, so that their difference says nothing. Set {', '.join(QUESTIONS)} under `set`, for all cells")  # fmt: skip
        settings = repr([_leaves(cell.recipe, scoring=scoring) for scoring in (False, True)])
        if (twin := known.setdefault(settings, cell)) is not cell:
            yield Problem(
                _place(cell, ()), f"cells {twin.name!r} and {cell.name!r} are the same: what differs has no effect"
            )
        if not spec.across_frames and _frames(cell) != _frames(cells[0]):
            yield Problem(_place(cell, FRAMES), f"cell {cell.name!r} sees other frames than {cells[0].name!r}. If the choice of "
                          "frames is what you study, set `across_frames: true`")  # fmt: skip


def _leaves(recipe: Recipe, *, scoring: bool) -> list[tuple[str, Any]]:
    """Settings that change the model; or those that change how it is scored."""
    found = [leaf for leaf in leaves(recipe) if leaf.step != "none"]
    return [(leaf.path, leaf.value) for leaf in found if leaf.path.startswith(SCORING) == scoring]


def _asked(cell: Cell) -> list[tuple[str, Any]]:
    return [(path, value) for path, value in _leaves(cell.recipe, scoring=True) if path.startswith(QUESTIONS)]


def _frames(cell: Cell) -> str:
    return FramePolicy.from_section(cell.recipe.data).fingerprint()


def _place(cell: Cell, paths: Sequence[str]) -> str:
    """The value of the cell that sets one of these paths."""
    return next((v.place for v in cell.values.values() for path in paths if _setting_of(path, v.settings)), "")
