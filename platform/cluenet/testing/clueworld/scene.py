"""Simulates a scene: objects on a grid, exactly one event per step.

Events: `hits` (one slides up against another, which moves in the next step), `moves` (one cell; because it was hit, or by
itself), `lights` (gets a white ring), `enters`, `leaves`. The last step is always an approach, for prediction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from cluenet.testing.clueworld.settings import COLOURS, HELD_OUT, SHAPES, Split, WorldSettings, scene_seed

Cell = tuple[int, int]
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass(frozen=True)
class Event:
    verb: str
    who: int
    whom: int | None = None  # hits: which object is hit
    cause: int | None = None  # moves: which object hit it, None if by itself


@dataclass(frozen=True)
class Scene:
    settings: WorldSettings
    colours: tuple[str, ...]  # of every object
    shapes: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]  # [step][object], None where it is out of view
    lit: tuple[tuple[bool, ...], ...]  # [step][object]
    events: tuple[Event, ...]  # event k happens in step k + 1
    approach: tuple[int, int]  # who will reach whom after the end

    @property
    def content(self) -> tuple:
        """Everything that can be seen; equal for two scenes that look alike."""
        return self.colours, self.shapes, self.cells, self.lit


def sample_scene(settings: WorldSettings, split: Split, index: int) -> Scene:
    """Scene `index` of a split; always the same one."""
    world, rng = settings.for_split(split), random.Random(scene_seed(settings, split, index))
    lights = rng.randrange(4)  # drawn once, so that failed attempts do not tilt the answers to "how many light"
    while True:
        scene = _attempt(world, split, rng, lights)
        if scene is not None:
            return scene


class _Board:
    """The state while a scene unfolds; every `commit` ends a step."""

    def __init__(self, settings: WorldSettings, rng: random.Random, absent: int | None):
        self.settings, self.rng, self.size = settings, rng, settings.grid
        cells = [(r, c) for r in range(self.size) for c in range(self.size)]
        rng.shuffle(cells)
        self.at: list[Cell | None] = [None if i == absent else cells[i] for i in range(settings.objects)]
        self.lit = [False] * settings.objects
        self.gone: set[int] = set()
        self.order = cells
        self.cells, self.lights, self.events = [tuple(self.at)], [tuple(self.lit)], []

    def commit(self, event: Event) -> None:
        self.events.append(event)
        self.cells.append(tuple(self.at))
        self.lights.append(tuple(self.lit))

    def inside(self, cell: Cell) -> bool:
        return 0 <= cell[0] < self.size and 0 <= cell[1] < self.size

    def border(self, cell: Cell) -> bool:
        return cell[0] in (0, self.size - 1) or cell[1] in (0, self.size - 1)

    def occupied(self) -> dict[Cell, int]:
        return {cell: i for i, cell in enumerate(self.at) if cell is not None}

    def shown(self) -> list[int]:
        found = [i for i, cell in enumerate(self.at) if cell is not None]
        self.rng.shuffle(found)
        return found


def _attempt(settings: WorldSettings, split: Split, rng: random.Random, lights: int) -> Scene | None:
    looks = _looks(settings, split, rng)
    plan = _plan(settings, rng, lights)
    if looks is None or plan is None:
        return None
    absent = rng.randrange(settings.objects) if "enters" in plan else None
    board = _Board(settings, rng, absent)
    actions = {"lights": _light, "enters": _enter, "leaves": _leave, "moves": _move, "hits": _hit}
    if not all(actions[name](board) for name in plan):
        return None
    approach = _approach(board)
    if approach is None:
        return None
    colours, shapes = looks
    return Scene(settings, colours, shapes, tuple(board.cells), tuple(board.lights), tuple(board.events), approach)


def _looks(settings: WorldSettings, split: Split, rng: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    colours = tuple(rng.sample(sorted(COLOURS), settings.objects))
    shapes = tuple(rng.choice([s for s in SHAPES if split == "ood_combinations" or (c, s) not in HELD_OUT]) for c in colours)
    unseen = sum(pair in HELD_OUT for pair in zip(colours, shapes))
    return (colours, shapes) if split != "ood_combinations" or unseen >= 2 else None


def _plan(settings: WorldSettings, rng: random.Random, lights: int) -> list[str] | None:
    """Which events, in which order; a hit takes two steps."""
    enters, leaves = rng.random() < 0.6, rng.random() < 0.6
    crowded = lights == 3 or (lights == 2 and enters and leaves)
    hits = 1 if crowded or lights + enters + leaves > 1 or rng.random() >= 0.6 else 2
    free = settings.steps - 2 - 2 * hits - lights - enters - leaves
    if free < 0:
        return None
    plan = ["hits"] * hits + ["lights"] * lights + ["enters"] * enters + ["leaves"] * leaves + ["moves"] * free
    rng.shuffle(plan)
    return plan


def _light(board: _Board) -> bool:
    dark = [i for i in board.shown() if not board.lit[i]]
    if dark:
        board.lit[dark[0]] = True
        board.commit(Event("lights", dark[0]))
    return bool(dark)


def _enter(board: _Board) -> bool:
    taken = board.occupied()
    waiting = [i for i, cell in enumerate(board.at) if cell is None and i not in board.gone]
    free = [cell for cell in board.order if board.border(cell) and cell not in taken]
    if not waiting or not free:
        return False
    board.at[waiting[0]] = board.rng.choice(free)
    board.commit(Event("enters", waiting[0]))
    return True


def _leave(board: _Board) -> bool:
    near = [i for i in board.shown() if board.border(board.at[i])]  # type: ignore[arg-type]
    if not near:
        return False
    board.at[near[0]] = None
    board.gone.add(near[0])
    board.commit(Event("leaves", near[0]))
    return True


def _move(board: _Board) -> bool:
    """One free cell on, with nothing right behind it: a move that touches nobody."""
    taken = board.occupied()
    for i in board.shown():
        directions = list(DIRECTIONS)
        board.rng.shuffle(directions)
        for direction in directions:
            to = _ahead(board.at[i], direction)  # type: ignore[arg-type]
            if board.inside(to) and to not in taken and _ahead(to, direction) not in taken:
                board.at[i] = to
                board.commit(Event("moves", i))
                return True
    return False


def _hit(board: _Board) -> bool:
    found = list(_possible_hits(board))
    if not found:
        return False
    who, whom, stop, pushed = board.rng.choice(found)
    board.at[who] = stop
    board.commit(Event("hits", who, whom))
    board.at[whom] = pushed
    board.commit(Event("moves", whom, cause=who))
    return True


def _possible_hits(board: _Board) -> Iterator[tuple[int, int, Cell, Cell]]:
    """(who, whom, where who stops, where whom is pushed to): at least one free cell between them, one behind."""
    taken = board.occupied()
    for who in board.shown():
        for direction in DIRECTIONS:
            cell, travelled = board.at[who], 0
            while board.inside(to := _ahead(cell, direction)):  # type: ignore[arg-type]
                if to in taken:
                    behind = _ahead(to, direction)
                    if travelled and board.inside(behind) and behind not in taken:
                        yield who, taken[to], cell, behind  # type: ignore[misc]
                    break
                cell, travelled = to, travelled + 1


def _approach(board: _Board) -> tuple[int, int] | None:
    """A move that leaves one free cell before another object: what comes next can be seen coming."""
    taken, found = board.occupied(), []
    for i in [i for i, cell in enumerate(board.at) if cell is not None]:
        for direction in DIRECTIONS:
            to = _ahead(board.at[i], direction)  # type: ignore[arg-type]
            gap = _ahead(to, direction)
            goal = _ahead(gap, direction)
            if board.inside(gap) and to not in taken and gap not in taken and board.inside(goal) and goal in taken:
                found.append((i, to, taken[goal]))
    if not found:
        return None
    who, to, whom = board.rng.choice(found)
    board.at[who] = to
    board.commit(Event("moves", who))
    return who, whom


def _ahead(cell: Cell, direction: Cell) -> Cell:
    return cell[0] + direction[0], cell[1] + direction[1]
