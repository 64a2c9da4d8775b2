"""The only file of this package that knows Ray: batches go to a pool of actors, samples come back as batches end."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.data

from cluenet.errors import CluenetError, ClusterError
from cluenet.evaluate.batches import Asking, BatchEvaluator, BatchResult, Part, opened, parts_from
from cluenet.prepared import PreparedSet
from cluenet.ray_data import quiet
from cluenet.recipe import Recipe

if TYPE_CHECKING:
    from cluenet.evaluate.sets import Work

MOST_BLOCKS = 1000


def results_of(recipe: Recipe, model_folder: Path, work: Work, asking: Asking) -> Iterator[tuple[int, BatchResult]]:
    """(place in `work`, result) of every batch, in the order in which they are done.

    Raises ClusterError when more workers are asked for than fit, and what stopped a worker: CheckpointError, DataError.
    """
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False)  # never a stranger's
    items = [
        {
            "index": index,
            "folder": str(test.prepared.folder),
            "features": test.features,
            "parts": _text(test.batches[number]),
        }
        for index, (test, number) in enumerate(work)
    ]
    cpus, gpus = float(asking.threads), recipe.train.resources.gpu
    check_resources(recipe.evaluate.workers, cpus, gpus, ray.cluster_resources())
    with quiet():
        results = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map(
            _Worker,
            fn_constructor_kwargs={"recipe": recipe.to_dict(), "model": str(model_folder), "asking": asking},
            num_cpus=cpus,
            num_gpus=gpus,
            compute=ray.data.ActorPoolStrategy(size=min(recipe.evaluate.workers, len(items))),
        )
        for row in results.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield row["index"], BatchResult(**json.loads(row["result"]))


def _text(parts: Sequence[Part]) -> str:
    return json.dumps([astuple(part) for part in parts])


def check_resources(workers: int, cpus: float, gpus: float, have: dict[str, float]) -> None:
    """Raises ClusterError when the workers can never run at once: Ray itself would wait for ever."""
    for kind, each, setting in (("CPU", cpus, "evaluate.threads"), ("GPU", gpus, "train.resources.gpu")):
        if workers * each > have.get(kind, 0):
            raise ClusterError(
                f"evaluate.workers={workers} x {setting}={each:g} asks for {workers * each:g} {kind}, but the cluster has "
                f"{have.get(kind, 0):g}. Lower evaluate.workers or {setting}, or join a larger cluster (--address)."
            )


class _Worker:
    """A user's error comes back as a value: raised here, Ray would retry it, log it at length and wrap it."""

    def __init__(self, recipe: dict[str, Any], model: str, asking: Asking):
        self._recipe, self._model, self._asking = recipe, Path(model), asking
        self._evaluator: BatchEvaluator | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            prepared = opened(row["folder"], row["features"])
            result, error = self._result(prepared, parts_from(json.loads(row["parts"]))), b""
        except CluenetError as problem:
            result, error = "", pickle.dumps(problem)
        return {"index": row["index"], "result": result, "error": error}

    def _result(self, prepared: PreparedSet, parts: Sequence[Any]) -> str:
        if self._evaluator is None:
            Recipe.from_dict(self._recipe)  # loads the plug-ins
            self._evaluator = BatchEvaluator(self._model, self._asking)
        return json.dumps(vars(self._evaluator(prepared, parts)), allow_nan=False)
