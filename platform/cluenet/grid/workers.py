"""Steps as Ray tasks. A step that is one process's work gets its CPUs and GPUs and does it there; one that brings workers of its
own (Ray Data, Ray Train) takes nothing itself."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from typing import Any

import ray

from cluenet import storage
from cluenet.errors import CluenetError
from cluenet.folders import storage_errors
from cluenet.grid.account import Outcome
from cluenet.grid.demand import Demand, in_process
from cluenet.grid.graph import Key, Node
from cluenet.planning import Plan
from cluenet.recipe import Recipe

SECONDS_BETWEEN_LOOKS = 0.5


class RayPool:
    """`cluenet.grid.execute.Pool` on a running Ray."""

    def __init__(self, whole: Demand):
        self.whole = whole
        self._running: dict[Any, Key] = {}

    def start(self, node: Node, demand: Demand) -> None:
        local = in_process(node)
        task = ray.remote(
            num_cpus=demand.cpu if local else 0, num_gpus=demand.gpu if local else 0, max_retries=0
        )(do_step)  # fmt: skip
        started = task.remote(_anywhere(node.recipe), node.key, node.evaluation, local, node.pause_at)
        self._running[started] = node.key

    def ended(self) -> Iterator[tuple[Key, Outcome]]:
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        for task in ready:
            yield self._running.pop(task), _outcome(task)

    def stop(self) -> None:
        for task in self._running:
            ray.cancel(task, force=True)


def _anywhere(recipe: Recipe) -> dict[str, Any]:
    """With folders that mean the same in every process."""
    folders = {
        "runs": str(Plan(recipe).runs), "store": storage.absolute(recipe.store), "mirror": storage.absolute(recipe.mirror),
    }  # fmt: skip
    return {**recipe.to_dict(), "extends": None, **folders}


def _outcome(task: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(task)
        return outcome
    except ray.exceptions.RayError as error:
        return Outcome(0.0, f"its process was lost: {str(error).strip().splitlines()[0]}")


def do_step(values: dict[str, Any], key: Key, evaluation: str, local: bool, pause_at: int | None = None) -> Outcome:
    """On the worker. Errors are results: raised here, Ray would wrap them. pause_at: the step at which a stage is left."""
    started = time.monotonic()
    try:
        with storage_errors(values["runs"]):
            ended = _do(Recipe.from_dict(values), key, evaluation, pause_at, local=local)
    except CluenetError as error:
        return Outcome(time.monotonic() - started, str(error), error.exit_code)
    except Exception as error:
        words = f"internal error: {type(error).__name__}: {error}"
        return Outcome(time.monotonic() - started, words, 1, traceback.format_exc())
    return Outcome(time.monotonic() - started, paused=not ended)


def _do(recipe: Recipe, key: Key, evaluation: str, pause_at: int | None, *, local: bool) -> bool:
    """Whether the step is finished now, and not paused."""
    from cluenet.data.prepare import prepare
    from cluenet.run import Run

    step, address = key
    if step == "prepare":
        (entry,) = (entry for folder, entry in Plan(recipe).entries().items() if folder.name == address)
        prepare(recipe, entry)
        return True
    with Run(recipe, local=local) as run:
        if step == "evaluate" and evaluation != "evaluation":
            run.results_of_trained(evaluation)
            return True
        if pause_at is not None:
            return run.train_until(step, pause_at)
        run.do(step)
        if step == "evaluate":
            run.finish(run.results)
        return True
