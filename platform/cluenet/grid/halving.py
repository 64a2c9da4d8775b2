"""Which steps of a grid may run now: with `asha` in its file, a stage is left at its next rung, and goes on when its bracket says so.

Without `asha` there are no rungs, and nothing is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from cluenet.grid.brackets import Brackets
from cluenet.grid.graph import Key, Node, Place
from cluenet.grid.rungs import Point
from cluenet.grid.scores import accuracy_at

Score: TypeAlias = Callable[[Node, int], float | None]
"""Validation accuracy of a stage at a step of it; None: it has not come so far."""


class Halving:
    def __init__(self, brackets: Brackets, score: Score = accuracy_at):
        self.brackets, self._score = brackets, score

    def refresh(self) -> None:
        """See which trainings have come to their rungs. Raises DataError for one without a score, StorageError."""
        changed = False
        while self._look() or self._go_on_for_nothing():
            changed = True
        if changed:
            self.brackets.save()

    def has_work(self) -> bool:
        """Whether anything can start when nothing runs. Raises as `refresh`."""
        self.refresh()
        left = {node.key: node for node in self.brackets.graph.left()}
        return bool(self.order([node for node in left.values() if not any(key in left for key in node.needs)]))

    def order(self, ready: Sequence[Node]) -> list[Node]:
        """Those that may start: steps of runs that went on before, of runs that would go on now, of new runs."""
        allowed = [node for node in ready if self.allows(node)]
        held = [node for node in ready if node not in allowed]
        old = sorted((node for node in allowed if self._level(node)), key=self._level, reverse=True)
        going_on = dict.fromkeys(node for _, node in self._promotions(held))
        return [*old, *going_on, *(node for node in allowed if not self._level(node))]

    def start(self, node: Node) -> Node:
        """The step begins, and what it waits for goes on; with the step of its stage at which it is left. Raises StorageError."""
        if not self.allows(node):
            (seed, point), _ = next(self._promotions([node]))
            self.brackets.by_seed[seed].promote(point)
            self.brackets.save()
        return replace(node, pause_at=self._pause_of(node))

    def allows(self, node: Node) -> bool:
        """Whether a run that needs the step has something of it to do on its way to its rung."""
        places = self._places(node.key)
        return not places or any(self._has_to_do(place, node.key, self.brackets.rung(place)) for place in places)

    def _promotions(self, held: Sequence[Node]) -> Iterator[tuple[tuple[int, Point], Node]]:
        """((seed, training), step that could start if the training went on): the highest rung first."""
        found = [(seed, point) for seed, one in self.brackets.by_seed.items() for point in one.promotable()]
        for seed, point in sorted(found, key=lambda one: one[1].steps, reverse=True):
            yield from (((seed, point), node) for node in held if self._waits_for(node, point))

    def _waits_for(self, node: Node, point: Point) -> bool:
        at_it = [place for place in self._places(node.key) if self.brackets.rung(place) == point]
        return any(self._has_to_do(place, node.key, self.brackets.after(place, point)) for place in at_it)

    def _has_to_do(self, place: Place, key: Key, rung: Point | None) -> bool:
        """Whether there is anything of a step on a run's way to a rung."""
        if rung is None:
            return True
        keys = self.brackets.graph.runs[place]
        mine, its = keys.index(key), keys.index(rung.key)
        return mine < its or (mine == its and rung not in self.brackets.of(place).accuracies)

    def _pause_of(self, node: Node) -> int | None:
        """Where the run that may go on farthest is compared next, if that is in this stage."""
        rungs = [self.brackets.rung(place) for place in self._places(node.key)]
        here = [point.step for point in rungs if point is not None and point.key == node.key]
        return max(here) if here and len(here) == len(rungs) else None

    def _places(self, key: Key) -> list[Place]:
        """Runs with rungs that need a step."""
        return [place for place in self.brackets.points if key in self.brackets.graph.runs[place]]

    def _level(self, node: Node) -> int:
        return max(map(self.brackets.level, self._places(node.key)), default=0)

    # ------------------------------------------------------------------------------------------------ what is there

    def _look(self) -> bool:
        """Reports what has come to its rung; whether anything has."""
        found = False
        for place in self.brackets.points:
            rung, bracket = self.brackets.rung(place), self.brackets.of(place)
            if rung is None or rung in bracket.accuracies:
                continue
            if (accuracy := self._score_of(rung)) is not None:
                bracket.report(rung, accuracy)
                found = True
        return found

    def _go_on_for_nothing(self) -> bool:
        """A training that an earlier run has brought to its next rung takes no room to go on; whether there was one."""
        for place in self.brackets.points:
            rung, bracket = self.brackets.rung(place), self.brackets.of(place)
            if rung is None or rung not in bracket.promotable():
                continue
            following = self.brackets.after(place, rung)
            if following is not None and self._score_of(following) is not None:
                bracket.promote(rung)
                return True
        return False

    def _score_of(self, point: Point) -> float | None:
        return self._score(self.brackets.graph.nodes[point.key], point.step)
