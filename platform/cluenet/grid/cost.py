"""What is left of a grid will take: seconds as far as such steps were done before, operations of training as `cluenet plan` counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from cluenet.errors import CheckpointError
from cluenet.estimate.accelerators import TERA
from cluenet.estimate.estimate import StageCost, estimate
from cluenet.grid.account import Account
from cluenet.grid.graph import Graph, Node
from cluenet.recipe import Recipe


@dataclass(frozen=True)
class StepCost:
    """Of one kind of step. asked: how often runs need it; unique: how many different ones there are. Of those that are left:
    seconds, one after the other, at the mean of those done in this grid before; teraflop of training. None: not known."""

    step: str
    asked: int
    unique: int
    finished: int
    seconds: float | None
    teraflop: float | None

    @property
    def left(self) -> int:
        return self.unique - self.finished

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "left": self.left}


def costs(graph: Graph, account: Account) -> list[StepCost]:
    """By step, in the order in which they are done."""
    means = account.mean_seconds(graph)
    return [_cost(step, graph, means.get(step), **counts) for step, counts in graph.counts().items()]


def _cost(step: str, graph: Graph, mean: float | None, *, asked: int, unique: int, finished: int) -> StepCost:
    left = [node for node in graph.left() if node.step == step]
    seconds = mean * len(left) if mean is not None else None if left else 0.0
    return StepCost(step, asked, unique, finished, seconds, _teraflop(left) if step.startswith("stage") else None)


def _teraflop(nodes: Iterable[Node]) -> float | None:
    """None where a backbone is not on this machine."""
    try:
        return sum(_operations(node) for node in nodes) / TERA
    except CheckpointError:
        return None


def _operations(node: Node) -> float:
    stages = _stages(_without_seed(node.recipe))
    return sum(stage.steps * stage.operations for stage in stages if stage.name == node.step)


def _without_seed(recipe: Recipe) -> str:
    """Runs of all seeds take the same."""
    return json.dumps(recipe.model_copy(update={"seed": 0}).to_dict())


@cache
def _stages(recipe: str) -> tuple[StageCost, ...]:
    return estimate(Recipe.from_dict(json.loads(recipe))).stages
