"""What a step takes of the cluster, and whether it runs inside the one process that is given it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluenet.cluster import require
from cluenet.grid.graph import Node
from cluenet.recipe import Recipe

SLACK = 1e-9


@dataclass(frozen=True)
class Demand:
    """cpu, gpu: of all its processes together."""

    cpu: float
    gpu: float

    def fits(self, free: Demand) -> bool:
        return self.cpu <= free.cpu + SLACK and self.gpu <= free.gpu + SLACK

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.cpu + other.cpu, self.gpu + other.gpu)

    def __sub__(self, other: Demand) -> Demand:
        return Demand(self.cpu - other.cpu, self.gpu - other.gpu)


MOST_AT_ONCE = 64.0
"""CPUs, and GPUs, that steps together ask for on a cluster that grows nobody knows how far."""


def whole_of(resources: Mapping[str, float] | None) -> Demand:
    """Of a cluster's resources, as `ray_data.capacity` tells them."""
    if resources is None:
        return Demand(MOST_AT_ONCE, MOST_AT_ONCE)
    return Demand(resources.get("CPU", 0.0), resources.get("GPU", 0.0))


def in_process(node: Node) -> bool:
    """Whether one process does it all: no Ray Train, whose start takes longer than a small stage, and no Ray Data."""
    recipe, step = node.recipe, node.step
    if step == "prepare":
        return False
    if step == "evaluate":
        return recipe.evaluate.workers == 1
    return step in ("pretrain", "model") or recipe.train.max_workers == 1


def demand_of(node: Node, whole: Demand) -> Demand:
    """At most the whole cluster, which preparing and elastic workers make do with; others that need more are refused before."""
    recipe, train = node.recipe, node.recipe.train
    cpu, gpu, workers = train.resources.cpu, train.resources.gpu, train.max_workers
    if node.step == "prepare":
        cpu, gpu, workers = recipe.data.decode_workers or whole.cpu, 0, 1
    if node.step == "evaluate":
        cpu, workers = recipe.evaluate.threads, recipe.evaluate.workers
    if node.step in ("pretrain", "model"):
        workers = 1
    return Demand(min(workers * cpu, whole.cpu), min(workers * gpu, whole.gpu))


def require_all(recipes: Iterable[Recipe], whole: Demand) -> None:
    """Raises ClusterError for what could never run here, and would wait for ever."""
    from cluenet.evaluate.workers import check_resources

    for recipe in recipes:
        train, scoring = recipe.train, recipe.evaluate
        require(workers=train.min_workers, cpu=train.resources.cpu, gpu=train.resources.gpu)
        have = {"CPU": whole.cpu, "GPU": whole.gpu}
        check_resources(scoring.workers, float(scoring.threads), train.resources.gpu, have)
