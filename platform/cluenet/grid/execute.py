"""Works through the steps of a grid: what is ready and fits runs, what fails is tried again, what needs it is left out.

A trainer of several workers starts only when all of them have room beside what runs already, so that no two of them hold half of
the cluster each and wait for the other half. A stage that is paused at a rung waits again, until it may go on (`halving`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from cluenet.grid.account import Account, Outcome
from cluenet.grid.brackets import Brackets
from cluenet.grid.demand import Demand, demand_of
from cluenet.grid.graph import Graph, Key, Node
from cluenet.grid.halving import Halving
from cluenet.progress import Progress


class Pool(Protocol):
    """Where steps run. whole: its resources."""

    whole: Demand

    def start(self, node: Node, demand: Demand) -> None:
        """Begin a step that fits beside those that run."""

    def ended(self) -> Iterable[tuple[Key, Outcome]]:
        """Those that came to an end, after a moment's wait for one."""

    def stop(self) -> None:
        """End what still runs."""


class Execution:
    """One pass over what is left of a graph."""

    def __init__(self, graph: Graph, pool: Pool, account: Account, *, retries: int, halving: Halving | None = None):
        """halving: what is held back; None: nothing is."""
        self.pool, self.account, self.retries = pool, account, retries
        self.halving = halving or Halving(Brackets(graph))
        # Preparing takes all CPUs, for which there is no room once others run: it comes first.
        ordered = sorted(graph.left(), key=lambda node: node.step != "prepare")
        self.waiting = {node.key: node for node in ordered}
        self.running: dict[Key, tuple[Node, Demand]] = {}
        self.failed: dict[Key, Outcome] = {}
        self._attempts: Counter[Key] = Counter()

    def run(self, title: str, progress: type[Progress] = Progress) -> None:
        """Until nothing more can be done; `failed` says what could not. Raises StorageError, and DataError as `Halving.refresh`."""
        self.halving.refresh()
        total = len(self.waiting)
        with progress(title, total=total, unit="steps") as display:
            try:
                while self._start_what_is_ready():
                    for key, outcome in self.pool.ended():
                        display.advance(self._end(key, outcome))
                    display.advance(0, running=len(self.running), failed=len(self.failed))
                display.update(display.done, total=total - len(self._held()))
            finally:
                self.pool.stop()

    def _start_what_is_ready(self) -> bool:
        """In order, as far as there is room; whether anything runs now."""
        for node in self.halving.order([node for node in self.waiting.values() if self._is_ready(node)]):
            demand = demand_of(node, self.pool.whole)
            if demand.fits(self._free):
                self.pool.start(self.halving.start(node), demand)
                self.running[node.key] = (self.waiting.pop(node.key), demand)
        return bool(self.running)

    def _is_ready(self, node: Node) -> bool:
        return not any(key in self.waiting or key in self.running or key in self.failed for key in node.needs)

    def _held(self) -> list[Node]:
        """Steps of runs that were stopped."""
        return [node for node in self.waiting.values() if not self.halving.allows(node)]

    @property
    def _free(self) -> Demand:
        free = self.pool.whole
        for _, demand in self.running.values():
            free = free - demand
        return free

    def _end(self, key: Key, outcome: Outcome) -> int:
        """How many steps are done with: one, or none when it is to be tried again or was paused."""
        node, _ = self.running.pop(key)
        self._attempts[key] += 1
        self.account.add(key, outcome, self._attempts[key])
        if outcome.error and self._attempts[key] > self.retries:
            self.failed[key] = outcome
            return 1
        if outcome.error or outcome.paused:
            self.waiting[key] = node
        if not outcome.error:
            self._attempts[key] = 0
            self.halving.refresh()
        return int(key not in self.waiting)
