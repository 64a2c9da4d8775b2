"""Ray Data as the steps use it."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray.data

from cluenet.errors import CluenetError

MOST_BLOCKS = 1000


def shows_all() -> bool:
    """Whether Ray's own bars and reports are wanted: `cluenet --verbose`, or the logger `cluenet` at level DEBUG."""
    return logging.getLogger("cluenet").isEnabledFor(logging.DEBUG)


@contextmanager
def quiet() -> Iterator[None]:
    """Ray Data without its own bars and reports, which would fight with ours, unless they are wanted."""
    if shows_all():
        yield
        return
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)


def capacity() -> dict[str, float] | None:
    """Resources that the cluster has, or may grow to by itself; None when it grows and nobody says how far.

    Ray's autoscaler (v2: `ray up`, KubeRay) does not tell drivers its limits, and a cluster that is scaled to zero has nothing.
    """
    from ray._private.state import state
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    now: dict[str, float] = ray.cluster_resources()
    if grown := state.get_max_resources_from_cluster_config():
        return now | {name: max(count, now.get(name, 0)) for name, count in grown.items()}
    return None if is_autoscaler_v2(fetch_from_server=True) else now


def on_actors(
    worker: type, job: dict[str, Any], items: Sequence[dict[str, Any]], *, actors: int, cpus: float, gpus: float
) -> Iterator[Any]:
    """What `worker(job)` makes of each item, in the order in which they are done; at most `actors` of them work at once.

    A worker is made with the first item it gets. Items and results are of JSON, the job is pickled. Raises the CluenetError that stopped one.
    """
    rows = [{"item": json.dumps(item)} for item in items]
    with quiet():
        results = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map(
            _Actor,
            fn_constructor_kwargs={"worker": worker, "job": job},
            num_cpus=cpus,
            num_gpus=gpus,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(rows))),
        )
        for row in results.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["result"])


class _Actor:
    """A user's error comes back as a value: raised here, Ray would retry it, log it at length and wrap it."""

    def __init__(self, worker: type, job: dict[str, Any]):
        self._make = partial(worker, job)
        self._worker: Callable[[Any], Any] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self._worker = self._worker or self._make()
            return {"result": json.dumps(self._worker(json.loads(row["item"]))), "error": b""}
        except CluenetError as error:
            return {"result": "", "error": pickle.dumps(error)}
