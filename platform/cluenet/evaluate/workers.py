"""The only file of this package that knows Ray: batches go to a pool of actors, samples come back as batches end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from cluenet.errors import ClusterError
from cluenet.evaluate.batches import Asking, BatchEvaluator, BatchResult, opened, parts_from
from cluenet.ray_data import capacity, on_actors
from cluenet.recipe import Recipe

if TYPE_CHECKING:
    from cluenet.evaluate.sets import Work


def results_of(recipe: Recipe, model_folder: Path, work: Work, asking: Asking) -> Iterator[tuple[int, BatchResult]]:
    """(place in `work`, result) of every batch, in the order in which they are done.

    Raises ClusterError when more workers are asked for than fit, and what stopped a worker: CheckpointError, DataError.
    """
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False)  # never a stranger's
    items = [
        {"index": index, "folder": str(test.prepared.folder), "features": test.features,
         "parts": [astuple(part) for part in test.batches[number]]}
        for index, (test, number) in enumerate(work)
    ]  # fmt: skip
    cpus, gpus = float(asking.threads), recipe.train.resources.gpu
    if (have := capacity()) is not None:
        check_resources(recipe.evaluate.workers, cpus, gpus, have)
    job = {"recipe": recipe.to_dict(), "model": str(model_folder), "asking": asking}
    for index, result in on_actors(_Worker, job, items, actors=recipe.evaluate.workers, cpus=cpus, gpus=gpus):
        yield index, BatchResult(**result)


def check_resources(workers: int, cpus: float, gpus: float, have: dict[str, float]) -> None:
    """Raises ClusterError when the workers can never run at once: Ray itself would wait for ever."""
    for kind, each, setting in (("CPU", cpus, "evaluate.threads"), ("GPU", gpus, "train.resources.gpu")):
        if workers * each > have.get(kind, 0):
            raise ClusterError(
                f"evaluate.workers={workers} x {setting}={each:g} asks for {workers * each:g} {kind}, but the cluster has "
                f"{have.get(kind, 0):g}. Lower evaluate.workers or {setting}, or join a larger cluster (--address)."
            )


class _Worker:
    def __init__(self, job: dict[str, Any]):
        Recipe.from_dict(job["recipe"])  # loads the plug-ins
        self._evaluator = BatchEvaluator(Path(job["model"]), job["asking"])

    def __call__(self, item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prepared = opened(item["folder"], item["features"])
        return item["index"], vars(self._evaluator(prepared, parts_from(item["parts"])))
