"""The only file of this package that knows Ray: batches go to a pool of actors, accounts of parts come back as they end."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from cluenet.data.batches import Batch
from cluenet.data.parts import Account, PartMaker
from cluenet.errors import CluenetError, ClusterError
from cluenet.ray_data import capacity, quiet
from cluenet.recipe import Recipe

BATCHES_PER_TASK = 4
"""A Ray Data task costs about 10 ms of its own; four batches of the smallest videos cost about 400 ms."""

TASKS_PER_WORKER = 4
"""At least, as far as there are batches: the last task of one worker keeps the others waiting."""

MOST_TASKS = 10_000
"""Ray keeps an object and a record of every task for as long as the step runs. Larger tasks lose nothing: parts are kept one by one."""

MOST_WORKERS = 64
"""On a cluster that grows nobody knows how far; `data.decode_workers` says otherwise."""


def accounts_of(work: Sequence[Batch], recipe: Recipe, folder: Path) -> Iterator[Account]:
    """The account of every batch's part, in the order in which they are done.

    Raises ClusterError when more workers are asked for than fit, and what stopped a worker: StorageError, PluginError.
    """
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False, log_to_driver=False)  # never a stranger's
    have = capacity()
    cpus = MOST_WORKERS if have is None else int(have.get("CPU", 0))
    workers = number_of_workers(recipe.data.decode_workers, cpus, len(work))
    tasks = number_of_tasks(len(work), workers)
    with quiet():
        batches = ray.data.from_items([{"batch": batch.to_json()} for batch in work], override_num_blocks=tasks)
        accounts = batches.map_batches(
            _Worker,
            fn_constructor_kwargs={"recipe": recipe.to_dict(), "folder": str(folder)},
            batch_size=1,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
        for row in accounts.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["account"])


def number_of_tasks(batches: int, workers: int) -> int:
    """One for BATCHES_PER_TASK batches, at most MOST_TASKS; of few batches more, so that workers end together."""
    return max(min(batches, TASKS_PER_WORKER * workers), min(MOST_TASKS, math.ceil(batches / BATCHES_PER_TASK)))


def number_of_workers(wanted: int | None, cpus: int, batches: int) -> int:
    """One per CPU unless `data.decode_workers` says otherwise, and never more than there are batches."""
    if max(wanted or 1, 1) > cpus:
        raise ClusterError(
            f"data.decode_workers is {wanted or 1}, but the cluster has {cpus} CPUs and a decoding process takes one. "
            "Lower data.decode_workers, or join a larger cluster."
        )
    return min(wanted or cpus, batches)


class _Worker:
    """A user's error comes back as a value: raised here, Ray would retry it, log it at length and wrap it."""

    def __init__(self, recipe: dict[str, Any], folder: str):
        self._maker: PartMaker | None = None
        self._recipe, self._folder = recipe, folder

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        results = [self._result(Batch.from_json(text)) for text in rows["batch"]]
        return {"account": [account for account, _ in results], "error": [error for _, error in results]}

    def _result(self, batch: Batch) -> tuple[str, bytes]:
        try:
            if self._maker is None:
                self._maker = PartMaker(Recipe.from_dict(self._recipe), Path(self._folder))
            return json.dumps(self._maker.account(batch)), b""
        except CluenetError as error:
            return "", pickle.dumps(error)
