"""How many trainings go on from each rung, and how many optimiser steps that makes, at least and at most: known before anything runs.

Of n trainings that reach a rung, n // eta go on in the end. More do where better ones come later: the first eta - 1 to come wait, and
every other one may be the best so far. The reference goes on in any case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from cluenet.errors import Problem, RecipeError
from cluenet.grid.cells import Grid
from cluenet.grid.graph import Graph, Key, Place, graph_of
from cluenet.grid.rungs import Point, by_rung, points_by_place, steps_of
from cluenet.grid.spec import Asha
from cluenet.recipe import Recipe

Span: TypeAlias = tuple[Key, int, int]
"""Optimiser steps of a stage, from and to."""


@dataclass(frozen=True)
class Rung:
    """Of one seed. steps: of a run. trainings: different ones that can reach it, `sure` of them at least. least, most: of those,
    how many go on. decides: whether there is anything to choose from."""

    steps: int
    trainings: int
    sure: int
    least: int
    most: int
    decides: bool


@dataclass(frozen=True)
class Bounds:
    """Optimiser steps of all seeds: least and most that are trained, and what it would be without `asha`."""

    rungs: tuple[Rung, ...]
    least: int
    most: int
    without: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def require_places(grid: Grid) -> None:
    """Raises RecipeError where a rung may get so few trainings that none of all cells goes on but the reference's."""
    if (asha := grid.spec.asha) is None:
        return
    problems = [
        Problem("asha.eta", f"is {asha.eta}, but only {rung.sure} different trainings are sure to reach the rung at {rung.steps} steps (cells that "
                "differ later share theirs), so that none but the reference's might go on. Lower it, change asha.first, or give more cells")
        for rung in bounds_of(asha, graph_of(grid)).rungs if rung.decides and rung.sure < asha.eta
    ]  # fmt: skip
    if problems:
        raise RecipeError(grid.file, problems)


def bounds_of(asha: Asha, graph: Graph) -> Bounds:
    points = points_by_place(asha, graph)
    rungs, least, most, without = (), 0, 0, 0
    for seed in dict.fromkeys(seed for _, seed in graph.runs):
        places = [place for place in graph.runs if place[1] == seed]
        rungs = rungs_of_seed([points[place] for place in places], asha)
        groups = _spans_by_level(graph, {place: points[place] for place in places})
        least += _total(groups, [rung.least for rung in rungs], fewest=True)
        most += _total(groups, [rung.most for rung in rungs], fewest=False)
        without += _length({span for level in groups for spans in level.values() for span in spans})
    return Bounds(tuple(rungs), least, most, without)


def rungs_of_seed(points: Sequence[tuple[Point, ...]], asha: Asha) -> list[Rung]:
    """points: of every cell, the reference first."""
    reference, found = points[0], []
    for rung, trials in enumerate(by_rung(points)):
        always = {one[rung] for one in points if len(one) > rung and one[:rung] == reference[:rung]}
        come = found[-1].least - _ending(points, rung) if found else len(trials)
        sure = min(len(trials), max(come, len(always)))
        kept = int(len(reference) > rung)
        most = min(len(trials), max(0, len(trials) - asha.eta + 1) + kept)
        decides = len(trials) > 1 or not kept
        steps = asha.first * asha.eta**rung
        found.append(Rung(steps, len(trials), sure, max(sure // asha.eta, kept), most, decides))
    return found


def _ending(points: Sequence[tuple[Point, ...]], rung: int) -> int:
    """Trainings of the rung before this one that end before this one."""
    further = {one[rung - 1] for one in points if len(one) > rung}
    return len({one[rung - 1] for one in points if len(one) == rung} - further)


# ------------------------------------------------------------------------------------------------- optimiser steps


def _spans_by_level(graph: Graph, points: Mapping[Place, tuple[Point, ...]]) -> list[dict[Point | None, set[Span]]]:
    """What is trained on the way to each rung, and to the end: by the trial of the rung before."""
    levels: list[dict[Point | None, set[Span]]] = [{} for _ in range(max(map(len, points.values())) + 1)]
    for place, found in points.items():
        spans = _spans(graph.plans[place].recipe, graph.runs[place], found)
        for level, before, part in zip(levels, (None, *found), spans):
            level.setdefault(before, set()).update(part)
    return levels


def _spans(recipe: Recipe, keys: Sequence[Key], points: Sequence[Point]) -> list[set[Span]]:
    first, by_step = recipe.train.stage1.steps, dict(keys)
    stages = [("stage1", 0, first), ("stage2", first, recipe.train.stage2.steps)]
    ends = [0, *(point.steps for point in points), steps_of(recipe)]
    return [
        {
            ((stage, by_step[stage]), max(start - before, 0), min(end - before, length))
            for stage, before, length in stages
            if max(start - before, 0) < min(end - before, length)
        }
        for start, end in pairwise(ends)
    ]


def _total(levels: Sequence[Mapping[Point | None, set[Span]]], go_on: Sequence[int], *, fewest: bool) -> int:
    """Where so many trials of each rung go on, those with the fewest steps to come or those with the most."""
    first, *others = (sorted(map(_length, level.values()), reverse=not fewest) for level in levels)
    return sum(first) + sum(sum(lengths[:places]) for lengths, places in zip(others, go_on))


def _length(spans: Collection[Span]) -> int:
    return sum(end - start for _, start, end in spans)
