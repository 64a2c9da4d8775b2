"""What is wrong with a grid beside its recipes: axes, exclusions, overrides, and what cells are to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from cluenet.decoding import FramePolicy
from cluenet.errors import Problem, suggestion
from cluenet.fingerprint import leaves
from cluenet.grid.combine import combinations_of, has, setting_of
from cluenet.grid.spec import Axis, GridSpec
from cluenet.recipe import Recipe

if TYPE_CHECKING:
    from cluenet.grid.cells import Cell

FRAMES = ("data.sampler", "data.size", "data.codec")
SCORING = ("evaluate", "data.test")
QUESTIONS = ("data.test", "evaluate.mode", "evaluate.seed", "evaluate.shuffles")
"""What is asked, and in which way: other settings of scoring may differ between cells."""


def axis_problems(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
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
    if "seed" in spec.set:
        yield Problem("set.seed", "is decided by `seeds`. Remove it here")
    yield from _conflicts(spec, axes)


def _conflicts(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
    """Settings that two values decide which can be in one cell; and what `set` says of an axis."""
    for one, other in combinations(axes, 2):
        for mine, theirs in product(one.values, other.values):
            if spec.mode == "one_factor" and mine is not one.reference and theirs is not other.reference:
                continue
            for path in theirs.settings:
                if twin := setting_of(path, mine.settings):
                    yield Problem(
                        other.place, f"sets {path}, and {one.place} sets {twin}. Put both into one `paired` axis"
                    )
    for path, twin in product(spec.axes, spec.set):
        if f"{twin}.".startswith(f"{path}."):
            yield Problem(f"set.{twin}", f"is varied by axes.{path}. Remove it from one of the two")


def exclude_problems(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
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
        if not partial or has(reference, partial):
            yield Problem(
                place, "leaves out the reference (the first value of every axis), which others are compared with"
            )
    if spec.mode == "product" and len(axes) > 1:
        yield from _emptied(spec, axes)


def _emptied(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[Problem]:
    """Values that `exclude` leaves no cell with."""
    left = list(combinations_of(spec, axes))
    for axis in axes:
        for value in axis.values:
            if not any(values[axis.name] is value for values in left):
                yield Problem(
                    value.place, f"{value.label!r} is in no cell: `exclude` leaves out all of them. Remove it"
                )


def override_problems(axes: Sequence[Axis], overrides: Sequence[str]) -> Iterator[Problem]:
    for text in overrides:
        path = text.partition("=")[0]
        if path == "seed":
            yield Problem("seeds", "decides the seeds of all cells; the command line cannot set `seed`")
        for axis in axes:
            if any(setting_of(path, value.settings) for value in axis.values):
                yield Problem(axis.place, f"varies what the command line sets: {text!r}. Leave out one of the two")


def cell_problems(spec: GridSpec, cells: Sequence[Cell]) -> Iterator[Problem]:
    """What cells are to each other: the same, asked other questions, or seeing other frames."""
    known: dict[str, Cell] = {}
    for cell in cells:
        if _asked(cell) != _asked(cells[0]):
            yield Problem(_place(cell, QUESTIONS), f"cell {cell.name!r} is asked other questions than {cells[0].name!r}, or in another "
                          f"way, so that their difference says nothing. Set {', '.join(QUESTIONS)} under `set`, for all cells")  # fmt: skip
        settings = repr([leaves_of(cell.recipe, scoring=scoring) for scoring in (False, True)])
        if (twin := known.setdefault(settings, cell)) is not cell:
            yield Problem(
                _place(cell, ()), f"cells {twin.name!r} and {cell.name!r} are the same: what differs has no effect"
            )
        if not spec.across_frames and _frames(cell) != _frames(cells[0]):
            yield Problem(_place(cell, FRAMES), f"cell {cell.name!r} sees other frames than {cells[0].name!r}. If the choice of "
                          "frames is what you study, set `across_frames: true`")  # fmt: skip


def leaves_of(recipe: Recipe, *, scoring: bool) -> list[tuple[str, Any]]:
    """Settings that change the model; or those that change how it is scored."""
    found = [leaf for leaf in leaves(recipe) if leaf.step != "none"]
    return [(leaf.path, leaf.value) for leaf in found if leaf.path.startswith(SCORING) == scoring]


def _asked(cell: Cell) -> list[tuple[str, Any]]:
    return [(path, value) for path, value in leaves_of(cell.recipe, scoring=True) if path.startswith(QUESTIONS)]


def _frames(cell: Cell) -> str:
    return FramePolicy.from_section(cell.recipe.data).fingerprint()


def _place(cell: Cell, paths: Sequence[str]) -> str:
    """The value of the cell that sets one of these paths."""
    return next((v.place for v in cell.values.values() for path in paths if setting_of(path, v.settings)), "")
