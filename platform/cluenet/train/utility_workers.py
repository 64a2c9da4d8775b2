"""Recording utilities with Ray Data: parts go to a pool of actors, their accounts come back as they end."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.data

from cluenet.errors import CluenetError
from cluenet.ray_data import quiet
from cluenet.recipe import Recipe
from cluenet.train.utility_parts import Account, Part, PartRecorder, UtilityJob

MOST_BLOCKS = 1000


def accounts_of(job: UtilityJob, work: Sequence[Part], recipe: Recipe) -> Iterator[Account]:
    """Accounts in the order in which parts are done. Raises what stopped a worker."""
    items, resources = [{"part": json.dumps(asdict(part))} for part in work], recipe.train.resources
    with quiet():
        accounts = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map(
            _Worker,
            fn_constructor_kwargs={"job": asdict(job)},
            num_cpus=resources.cpu,
            num_gpus=resources.gpu,
            compute=ray.data.ActorPoolStrategy(size=min(recipe.train.min_workers, len(items))),
        )
        for row in accounts.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["account"])


class _Worker:
    """A user's error comes back as a value: raised here, Ray would retry it, log it at length and wrap it."""

    def __init__(self, job: dict[str, Any]):
        self._job = UtilityJob(**job)
        self._recorder: PartRecorder | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._recorder is None:
                self._recorder = PartRecorder(self._job)
            return {"account": json.dumps(self._recorder.account(Part(**json.loads(row["part"])))), "error": b""}
        except CluenetError as error:
            return {"account": "", "error": pickle.dumps(error)}
