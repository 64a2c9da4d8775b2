"""Facts of a scene as clues: words by role, the time of their step, a box for every moment and object they are about."""

from __future__ import annotations

from cluenet.records import Box, Clue
from cluenet.testing.clueworld.scene import Cell, Event, Scene


def box(scene: Scene, step: int, cell: Cell) -> Box:
    """The cell, at the middle of the step."""
    grid = scene.settings.grid
    row, col = cell
    seconds = (step + 0.5) * scene.settings.step_seconds
    return Box(seconds, col / grid, row / grid, (col + 1) / grid, (row + 1) / grid)


def _clue(scene: Scene, first: int, last: int, words: dict[str, str], boxes: list[Box]) -> Clue:
    step = scene.settings.step_seconds
    return Clue(" ".join(words.values()), first * step, (last + 1) * step, tuple(boxes), words)


def _boxes(scene: Scene, steps: list[int], i: int) -> list[Box]:
    return [box(scene, step, cell) for step in steps if (cell := scene.cells[step][i]) is not None]


def event_fact(scene: Scene, k: int) -> Clue:
    """What happens in step k + 1, seen there and in the step before; a hit also at the one that is hit."""
    event, step = scene.events[k], k + 1
    words = {"who": scene.colours[event.who], "what": event.verb}
    boxes = _boxes(scene, [step - 1, step], event.who)
    if event.whom is not None:
        words["whom"] = scene.colours[event.whom]
        boxes += _boxes(scene, [step], event.whom)
    return _clue(scene, step, step, words, boxes)


def shape_fact(scene: Scene, i: int) -> Clue:
    """What an object looks like, seen at the start."""
    words = {"who": scene.colours[i], "what": "is", "whom": scene.shapes[i]}
    return _clue(scene, 0, 0, words, _boxes(scene, [0], i))


def ahead_fact(scene: Scene) -> Clue:
    """Who stands in the way of the approach, seen at the end."""
    last, whom = scene.settings.steps - 1, scene.approach[1]
    return _clue(scene, last, last, {"who": scene.colours[whom], "what": "ahead"}, _boxes(scene, [last], whom))


def states(scene: Scene) -> list[Clue]:
    """What every object looks like and which ones are lit, with a box for every step that shows it."""
    found = []
    steps = range(scene.settings.steps)
    for i, (colour, shape) in enumerate(zip(scene.colours, scene.shapes)):
        shown = [step for step in steps if scene.cells[step][i] is not None]
        lit = [step for step in shown if scene.lit[step][i]]
        found.append(_clue(scene, shown[0], shown[-1], {"who": colour, "what": "is", "whom": shape}, _boxes(scene, shown, i)))
        if lit:
            found.append(_clue(scene, lit[0], lit[-1], {"who": colour, "what": "lights"}, _boxes(scene, lit, i)))
    return found


def event_words(scene: Scene, event: Event) -> str:
    """An event as an option is written: `red hits blue`, `cyan enters`."""
    whom = [] if event.whom is None else [scene.colours[event.whom]]
    return " ".join([scene.colours[event.who], event.verb, *whom])
