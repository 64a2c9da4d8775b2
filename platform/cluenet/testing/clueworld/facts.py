"""Facts of a scene as clues: words by role, the time of their steps, and a box for each moment and object they are about.

A box is the cell where the object rests at the end of a step, at the time of the middle of that step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from cluenet.records import Box, Clue
from cluenet.testing.clueworld.world import Cell, Event, Scene


def event_words(scene: Scene, event: Event) -> str:
    """An event as an option says it: `red hits blue`, `cyan enters`."""
    return " ".join(_event_concepts(scene, event).values())


def event_fact(scene: Scene, k: int) -> Clue:
    """What happens in step k + 1: where its object is before and after, and whom it hits."""
    event, step = scene.events[k], k + 1
    boxes = _boxes(scene, event.who, (step - 1, step))
    if event.whom is not None:
        boxes += _boxes(scene, event.whom, (step,))
    return _clue(scene, step, step, _event_concepts(scene, event), boxes)


def shape_fact(scene: Scene, i: int) -> Clue:
    """What an object looks like, at the first step that shows it."""
    first = scene.shown_steps(i)[0]
    return _clue(scene, first, first, _shape_concepts(scene, i), _boxes(scene, i, (first,)))


def ahead_fact(scene: Scene) -> Clue:
    """Who stands in the way of the approach, at the last step."""
    last, whom = len(scene.events), scene.approach[1]
    return _clue(scene, last, last, {"who": scene.colours[whom], "what": "ahead"}, _boxes(scene, whom, (last,)))


def state_facts(scene: Scene) -> list[Clue]:
    """What every object looks like and which ones are lit, with a box for each step that shows it.

    They locate each object throughout the video, which is enough to learn what a patch shows.
    """
    facts = []
    for i, colour in enumerate(scene.colours):
        shown = scene.shown_steps(i)
        lit = [step for step in shown if scene.lit[step][i]]
        facts.append(_clue(scene, shown[0], shown[-1], _shape_concepts(scene, i), _boxes(scene, i, shown)))
        if lit:
            facts.append(_clue(scene, lit[0], lit[-1], {"who": colour, "what": "lights"}, _boxes(scene, i, lit)))
    return facts


def _event_concepts(scene: Scene, event: Event) -> dict[str, str]:
    concepts = {"who": scene.colours[event.who], "what": event.verb}
    return concepts if event.whom is None else {**concepts, "whom": scene.colours[event.whom]}


def _shape_concepts(scene: Scene, i: int) -> dict[str, str]:
    return {"who": scene.colours[i], "what": "is", "whom": scene.shapes[i]}


def _clue(scene: Scene, first: int, last: int, concepts: dict[str, str], boxes: list[Box]) -> Clue:
    step = scene.settings.step_seconds
    return Clue(
        " ".join(concepts.values()), _rounded(first * step), _rounded((last + 1) * step), tuple(boxes), concepts
    )


def _boxes(scene: Scene, i: int, steps: Iterable[int]) -> list[Box]:
    """Where object `i` rests at the end of each of these steps that shows it."""
    seconds, grid = scene.settings.step_seconds, scene.settings.grid
    places = [(step, cell) for step in steps if (cell := scene.cells[step][i]) is not None]
    return [_box((step + 0.5) * seconds, cell, grid) for step, cell in places]


@lru_cache(maxsize=4096)  # the same few come again in every scene
def _box(seconds: float, cell: Cell, grid: int) -> Box:
    row, col = cell
    x1, y1, x2, y2 = (_rounded(line / grid) for line in (col, row, col + 1, row + 1))
    return Box(_rounded(seconds), x1, y1, x2, y2)


def _rounded(value: float) -> float:
    return round(value, 6)
