"""Simulates a scene: objects on a grid, and exactly one event per step.

Events: `hits` (one slides up against another, which moves in the next step), `moves` (one cell; because it was hit, or by
itself), `lights` (gets a white ring for good), `enters`, `leaves`. The last step is always an approach: a move after which
one free cell remains before another object, so that what comes next can be foreseen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluenet.testing.clueworld.settings import COLOURS, HELD_OUT, SHAPES, WorldSettings

Cell = tuple[int, int]
"""(row, column), from the top left corner."""

DIRECTIONS: tuple[Cell, ...] = ((0, 1), (0, -1), (1, 0), (-1, 0))
MOST_LIGHTS = 3
MIN_HELD_OUT = 2


@dataclass(frozen=True)
class Event:
    """What happens in one step. Objects are numbered as in `Scene.colours`."""

    verb: str
    who: int
    whom: int | None = None  # hits: which object is hit
    cause: int | None = None  # moves: which object hit it, None if it moves by itself


@dataclass(frozen=True)
class Scene:
    """All that happens in one video. Positions and lights are those at the end of each step."""

    seed: int
    settings: WorldSettings
    colours: tuple[str, ...]  # of each object
    shapes: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]  # [step][object], None where it is out of view
    lit: tuple[tuple[bool, ...], ...]  # [step][object]
    events: tuple[Event, ...]  # event k happens in step k + 1
    approach: tuple[int, int]  # (who, whom): who will reach whom after the end

    @property
    def content(self) -> tuple[object, ...]:
        """Everything that can be seen; equal for two scenes that look alike."""
        return self.colours, self.shapes, self.cells, self.lit

    def shown_steps(self, i: int) -> list[int]:
        """Steps that end with object `i` in view."""
        return [step for step, cells in enumerate(self.cells) if cells[i] is not None]


def allowed_shapes(colour: str, settings: WorldSettings) -> tuple[str, ...]:
    """Shapes that an object of this colour may have in this world."""
    return tuple(shape for shape in SHAPES if settings.combinations == "held_out" or (colour, shape) not in HELD_OUT)


def sample_scene(seed: int, settings: WorldSettings) -> Scene:
    """A scene drawn at random; the same seed and settings give the same one."""
    rng = random.Random(seed)
    plan = _plan(settings, rng)  # drawn once: retries must not tilt how many light up, or what comes early or late
    while True:  # about seven attempts of a quarter of a millisecond
        colours, shapes = _looks(settings, rng)
        board = _Board(settings, rng, has_entry="enters" in plan)
        if all(_ACTIONS[verb](board) for verb in plan) and (approach := _approach(board)):
            history = tuple(board.cells), tuple(board.lights), tuple(board.events)
            return Scene(seed, settings, colours, shapes, *history, approach)


def _looks(settings: WorldSettings, rng: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Colours and shapes of the objects."""
    while True:
        colours = tuple(rng.sample(list(COLOURS), settings.objects))
        shapes = tuple(rng.choice(allowed_shapes(colour, settings)) for colour in colours)
        held_out = sum(pair in HELD_OUT for pair in zip(colours, shapes, strict=True))
        if settings.combinations == "usual" or held_out >= MIN_HELD_OUT:
            return colours, shapes


def _plan(settings: WorldSettings, rng: random.Random) -> list[str]:
    """Which events, in which order, before the approach. A hit takes two steps, free ones are filled with moves."""
    lights = rng.randint(0, MOST_LIGHTS)
    while True:
        enters, leaves = rng.random() < 0.6, rng.random() < 0.6
        is_quiet = lights + enters + leaves <= 1
        hits = 2 if is_quiet and rng.random() < 0.6 else 1
        free = settings.steps - 2 - 2 * hits - lights - enters - leaves
        if free >= 0:
            plan = ["hits"] * hits + ["lights"] * lights + ["enters"] * enters + ["leaves"] * leaves + ["moves"] * free
            rng.shuffle(plan)
            return plan


class _Board:
    """Where everything is while a scene unfolds; each `commit` ends a step."""

    def __init__(self, settings: WorldSettings, rng: random.Random, *, has_entry: bool):
        self.rng, self.size = rng, settings.grid
        self.all_cells = [(row, col) for row in range(self.size) for col in range(self.size)]
        rng.shuffle(self.all_cells)
        absent = rng.randrange(settings.objects) if has_entry else None
        self.at: list[Cell | None] = [None if i == absent else self.all_cells[i] for i in range(settings.objects)]
        self.lit = [False] * settings.objects
        self.gone: set[int] = set()
        self.cells, self.lights, self.events = [tuple(self.at)], [tuple(self.lit)], list[Event]()

    def commit(self, event: Event) -> bool:
        self.events.append(event)
        self.cells.append(tuple(self.at))
        self.lights.append(tuple(self.lit))
        return True

    def contains(self, cell: Cell) -> bool:
        return 0 <= cell[0] < self.size and 0 <= cell[1] < self.size

    def is_border(self, cell: Cell) -> bool:
        return not {0, self.size - 1}.isdisjoint(cell)

    def occupied(self) -> dict[Cell, int]:
        return {cell: i for i, cell in enumerate(self.at) if cell is not None}

    def is_free(self, cell: Cell) -> bool:
        """A cell of the grid that nothing stands on."""
        return self.contains(cell) and cell not in self.at

    def shown(self) -> list[tuple[int, Cell]]:
        """Objects in view and where they are, in random order."""
        found = [(i, cell) for i, cell in enumerate(self.at) if cell is not None]
        self.rng.shuffle(found)
        return found


def _light(board: _Board) -> bool:
    dark = [i for i, _ in board.shown() if not board.lit[i]]
    if not dark:
        return False
    board.lit[dark[0]] = True
    return board.commit(Event("lights", dark[0]))


def _enter(board: _Board) -> bool:
    waiting = [i for i, cell in enumerate(board.at) if cell is None and i not in board.gone]
    free = [cell for cell in board.all_cells if board.is_border(cell) and board.is_free(cell)]
    if not waiting or not free:
        return False
    board.at[waiting[0]] = board.rng.choice(free)
    return board.commit(Event("enters", waiting[0]))


def _leave(board: _Board) -> bool:
    near = [i for i, cell in board.shown() if board.is_border(cell)]
    if not near:
        return False
    board.at[near[0]] = None
    board.gone.add(near[0])
    return board.commit(Event("leaves", near[0]))


def _move(board: _Board) -> bool:
    """One free cell on, with nothing right behind it, so that it does not look like a hit."""
    for i, cell in board.shown():
        for direction in board.rng.sample(DIRECTIONS, len(DIRECTIONS)):
            to = _next(cell, direction)
            if board.is_free(to) and _next(to, direction) not in board.occupied():
                board.at[i] = to
                return board.commit(Event("moves", i))
    return False


def _hit(board: _Board) -> bool:
    found = list(_possible_hits(board))
    if not found:
        return False
    who, whom, stop, pushed = board.rng.choice(found)
    board.at[who] = stop
    board.commit(Event("hits", who, whom))
    board.at[whom] = pushed
    return board.commit(Event("moves", whom, cause=who))


def _possible_hits(board: _Board) -> Iterator[tuple[int, int, Cell, Cell]]:
    """(who, whom, where `who` stops, where `whom` is pushed): some free cells between them, a free one behind."""
    occupied = board.occupied()
    for who, start in board.shown():
        for direction in DIRECTIONS:
            stop = start
            while board.is_free(goal := _next(stop, direction)):
                stop = goal
            pushed = _next(goal, direction)
            if stop != start and goal in occupied and board.is_free(pushed):
                yield who, occupied[goal], stop, pushed


def _approach(board: _Board) -> tuple[int, int] | None:
    """The last event: (who comes one free cell close, to whom). None where nobody can."""
    occupied, found = board.occupied(), []
    for i, cell in board.shown():
        for direction in DIRECTIONS:
            to = _next(cell, direction)
            gap = _next(to, direction)
            goal = _next(gap, direction)
            if board.is_free(to) and board.is_free(gap) and goal in occupied:
                found.append((i, to, occupied[goal]))
    if not found:
        return None
    who, to, whom = board.rng.choice(found)
    board.at[who] = to
    board.commit(Event("moves", who))
    return who, whom


def _next(cell: Cell, direction: Cell) -> Cell:
    return cell[0] + direction[0], cell[1] + direction[1]


_ACTIONS: dict[str, Callable[[_Board], bool]] = {
    "lights": _light,
    "enters": _enter,
    "leaves": _leave,
    "moves": _move,
    "hits": _hit,
}
