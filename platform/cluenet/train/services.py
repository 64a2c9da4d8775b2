"""Weights & Biases and MLflow: a run of theirs per stage, grouped by the run folder's name; a resumed stage continues its own.

Both are set up by their own environment variables on the machine of the first worker (docs/trackers.md); nothing of these is
read, logged or written here. Without any, W&B asks for a login, and MLflow writes into `<run>/mlflow.db`.

    <run>/<stage>/trackers.json   {service: the id of the stage's run there}
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from cluenet.errors import CluenetError, Problem, RecipeError
from cluenet.folders import atomic_write_json, finished
from cluenet.recipe import Recipe

PROJECT = "cluenet"
PARAMETERS_AT_ONCE = 100
"""What MLflow takes in one request."""
NO_NUMBERS = ("stage", "step")


def require(recipe: Recipe) -> None:
    """Raises RecipeError, before any worker starts, where the recipe reports to a service whose package is missing here."""
    if missing := [name for name in recipe.train.report_to if name in SERVICES and find_spec(name) is None]:
        raise RecipeError(recipe.name, [_not_installed(name) for name in missing])


def _not_installed(name: str) -> Problem:
    return Problem(
        "train.report_to",
        f"{name} is not installed. Install it with: pip install cluenet[{name}], or remove it from the list",
    )


class Session(Protocol):
    """A run of a service that is open. `id`: to open it again."""

    id: str

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def end(self, *, done: bool) -> None: ...


class Service:
    """A stage's numbers go to one service. Lines up to step `told` are there from an earlier attempt, and not sent again.

    Raises RecipeError when the package is missing, CluenetError when the service refuses us or cannot be reached.
    """

    def __init__(self, name: str, run: Path, stage: str, recipe: Mapping[str, Any], *, told: int):
        if find_spec(name) is None:
            raise RecipeError(str(recipe["name"]), [_not_installed(name)])
        self._name, self._folder, self._told = name, run / stage, told
        ids = self._ids()
        with self._failures():
            self._session = SERVICES[name](run, stage, recipe, ids.get(name))
        atomic_write_json(self._folder / "trackers.json", {**ids, name: self._session.id})

    def _ids(self) -> dict[str, str]:
        try:
            return dict(json.loads((self._folder / "trackers.json").read_text()))
        except FileNotFoundError:
            return {}

    def write(self, line: Mapping[str, Any]) -> None:
        if line["step"] > self._told:
            numbers = {n: float(v) for n, v in line.items() if isinstance(v, (int, float)) and n not in NO_NUMBERS}
            with self._failures():
                self._session.log(line["step"], numbers)

    def sync(self) -> None:
        """Services send in their own time."""

    def close(self) -> None:
        with self._failures():
            self._session.end(done=finished(self._folder))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise CluenetError(
                f"train.report_to: {self._name}: {type(error).__name__}: {error} Check its settings in the environment of the "
                f"training worker (docs/trackers.md), or remove {self._name} from the list; the same command goes on from the last "
                "checkpoint."
            ) from error


class WandB:
    """https://docs.wandb.ai: project WANDB_PROJECT or `cluenet`; the files of WANDB_MODE=offline in `<run>/wandb`."""

    def __init__(self, run: Path, stage: str, recipe: Mapping[str, Any], known: str | None):
        import wandb

        self.id = known or uuid.uuid4().hex[:8]
        quiet = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_meta=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=self.id, resume="allow", name=f"{run.name} {stage}",
            group=run.name, job_type=stage, dir=str(run), config=dict(recipe), settings=quiet,
        )  # fmt: skip

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def end(self, *, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class MLflow:
    """https://mlflow.org: experiment MLFLOW_EXPERIMENT_NAME or `cluenet`, at MLFLOW_TRACKING_URI or in `<run>/mlflow.db`."""

    def __init__(self, run: Path, stage: str, recipe: Mapping[str, Any], known: str | None):
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run / 'mlflow.db'}")
        self.id = known or self._new(f"{run.name} {stage}", {"run": run.name, "stage": stage}, recipe)
        self._client.update_run(self.id, status="RUNNING")

    def _new(self, name: str, tags: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment(), run_name=name, tags=dict(tags))
        settings = [Param(path, value) for path, value in flat(recipe)]
        for first in range(0, len(settings), PARAMETERS_AT_ONCE):
            self._client.log_batch(run.info.run_id, params=settings[first : first + PARAMETERS_AT_ONCE])
        return str(run.info.run_id)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

    def end(self, *, done: bool) -> None:
        self._client.set_terminated(self.id, status="FINISHED" if done else "FAILED")


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, value as text) of every leaf."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield from flat({str(place): item for place, item in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


SERVICES: dict[str, Callable[[Path, str, Mapping[str, Any], str | None], Session]] = {"wandb": WandB, "mlflow": MLflow}
