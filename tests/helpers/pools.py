"""Pools for grids in which nothing is done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from cluenet.folders import write_manifest
from cluenet.grid.account import Outcome
from cluenet.grid.demand import Demand
from cluenet.grid.graph import Key, Node


class Pretended:
    """Steps end one at a time, the one that was started last first. fails: how often each one does."""

    def __init__(self, whole: Demand, fails: dict[str, int] | None = None):
        self.whole, self.fails = whole, dict(fails or {})
        self.started: list[str] = []
        self.running: list[tuple[Key, Demand]] = []
        self.most = Demand(0, 0)
        self.stopped = False

    def start(self, node: Node, demand: Demand) -> None:
        self.started.append(node.key[1])
        self.running.append((node.key, demand))
        used = Demand(sum(one.cpu for _, one in self.running), sum(one.gpu for _, one in self.running))
        self.most = Demand(max(self.most.cpu, used.cpu), max(self.most.gpu, used.gpu))

    def ended(self) -> Iterator[tuple[Key, Outcome]]:
        key, _ = self.running.pop()
        if self.fails.get(key[1], 0):
            self.fails[key[1]] -= 1
            yield key, Outcome(1.0, "it broke", 2)
        else:
            yield key, Outcome(1.0)

    def stop(self) -> None:
        self.stopped = True


class Training(Pretended):
    """The same, and stages come as far as they should. accuracies: of stages. starts, ends: (step, where it pauses) of each."""

    def __init__(self, whole: Demand, accuracies: dict[Key, float]):
        super().__init__(whole)
        self.accuracies = accuracies
        self.reached: dict[Key, float] = {}
        self.starts: list[tuple[Key, int | None]] = []
        self.ends: list[tuple[Key, int | None]] = []
        self._nodes: dict[Key, Node] = {}

    def start(self, node: Node, demand: Demand) -> None:
        super().start(node, demand)
        self.starts.append((node.key, node.pause_at))
        self._nodes[node.key] = node

    def ended(self) -> Iterator[tuple[Key, Outcome]]:
        for key, outcome in super().ended():
            if outcome.error:
                yield key, outcome
                continue
            node = self._nodes[key]
            self.ends.append((key, node.pause_at))
            paused = node.pause_at is not None and node.pause_at < getattr(node.recipe.train, node.step).steps
            self.reached[key] = node.pause_at if paused else math.inf
            yield key, replace(outcome, paused=paused)

    def score(self, node: Node, step: int) -> float | None:
        """For `Halving`."""
        return self.accuracies[node.key] if self.reached.get(node.key, 0) >= step else None


class Killed(Training):
    """Is interrupted when so many steps have ended as `lives`. Finished ones leave their manifest."""

    lives = 0

    def ended(self) -> Iterator[tuple[Key, Outcome]]:
        if not self.lives:
            self.running.clear()
            raise KeyboardInterrupt
        self.lives -= 1
        for key, outcome in super().ended():
            if not outcome.paused:
                finish(self._nodes[key])
            yield key, outcome


def finish(node: Node) -> None:
    """As if the step were done."""
    folder = node.folder / "clueworld-test" if node.step == "evaluate" else node.folder
    write_manifest(folder, {"address": node.key[1]})
