"""Asynchronous successive halving: which trials go on from a rung to the next one.

L. Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, https://arxiv.org/abs/1810.05934, algorithm 2:
whenever there is room, a trial that is among the best 1/eta of those that have reached its rung, and has not gone on yet, goes on,
from the highest rung where there is one; otherwise a new trial begins at the bottom.

Two things are ours. Trials of equal accuracy stand in the order of the grid, so that a draw does not depend on who was first. Trials
that are `kept` go on whatever their rank (the reference, which all others are compared with); they are ranked like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Trial = TypeVar("Trial", bound=Hashable)


@dataclass(frozen=True)
class Standing:
    """accuracy: a share. rank: from 1, among `of` trials that have reached the rung, the best `places` of which go on."""

    accuracy: float
    rank: int
    of: int
    places: int


class Bracket(Generic[Trial]):
    """Trials that are compared with each other, one at each rung that it may reach: where a trial splits into several, or gets
    further, there are other ones at the next rung."""

    def __init__(self, rungs: Sequence[Sequence[Trial]], *, eta: int, kept: Collection[Trial] = ()):
        """rungs: the trials that can reach each one, the lowest rung first, in the order of the grid."""
        self.rungs = [list(dict.fromkeys(rung)) for rung in rungs]
        self.eta, self.kept = eta, frozenset(kept)
        self.accuracies: dict[Trial, float] = {}
        self.promoted: set[Trial] = set()

    def report(self, trial: Trial, accuracy: float) -> None:
        """It has reached its rung."""
        self.accuracies[trial] = accuracy

    def promote(self, trial: Trial) -> None:
        """It goes on."""
        self.promoted.add(trial)

    def promotable(self) -> Iterator[Trial]:
        """Those that may go on now, in the order in which they should: the highest rung first, in a rung the best one."""
        for rung in reversed(self.rungs):
            ranked = self._ranked(rung)
            best = ranked[: len(ranked) // self.eta]
            yield from (one for one in ranked if (one in best or one in self.kept) and one not in self.promoted)

    def standing(self, trial: Trial) -> Standing:
        """Of one that has reached its rung."""
        ranked = self._ranked(next(rung for rung in self.rungs if trial in rung))
        return Standing(self.accuracies[trial], ranked.index(trial) + 1, len(ranked), len(ranked) // self.eta)

    def _ranked(self, rung: Sequence[Trial]) -> list[Trial]:
        reached = [trial for trial in rung if trial in self.accuracies]
        return sorted(reached, key=lambda trial: -self.accuracies[trial])
