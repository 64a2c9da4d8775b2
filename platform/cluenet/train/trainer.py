"""Runs a training stage on Ray Train.

Ray Train starts the workers, joins them in a process group and starts them again when one is lost; `train.loop` does the
rest, from its own checkpoints in the run folder, which all nodes must see. So it makes no difference whether one worker
died, or everything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluenet import errors
from cluenet.errors import CheckpointError, CluenetError, ClusterError, Problem, RecipeError
from cluenet.features import plain_paths
from cluenet.folders import atomic_write_json, finished, read_manifest
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.train import calibration, checkpoints, services
from cluenet.train.group import OtherWorkerError
from cluenet.train.job import StageJob, Worker
from cluenet.train.loop import run_stage
from cluenet.train.ray_settings import backend_of, failures_of, scaling_of
from cluenet.train.supervision import supervision_of
from cluenet.train.trackers import Follower
from cluenet.train.validation import metrics_of

SECONDS_BETWEEN_LOOKS = 0.5
Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def train_stage(
    recipe: Recipe, stage_name: str, *, run: Path, base: Path, prepared: Mapping[str, Sequence[Path]], init: Path | None,
    address: str, utilities: Path | None = None, features: Mapping[Path, Path] | None = None,
    progress: type[Progress] = Progress, say: Say = to_stderr, local: bool = False, pause_at: int | None = None,
) -> Path | None:  # fmt: skip
    """Train `stage1` or `stage2` into `<run>/<stage>/` and return its best checkpoint's folder, or None where it is paused.

    base: backbone in Hugging Face layout. prepared: folders under `train` and `validation`, in the recipe's order.
    init: a checkpoint folder to start from, for stage 2 the one that stage 1 returned, which is its best on validation (the
    last one where nothing is validated); None: the base's own weights. address: of the stage, by `cluenet.fingerprint`.
    utilities: what `train.offline.record_utilities` returned, where the filter is taught on it. features: folders of the
    prepared sets' features, where they have some.
    progress: makes the progress display. say: gets what is taught and what is masked. local: in this process, without Ray.
    pause_at: the optimiser step after which the stage is left with a checkpoint, to be resumed as after an interruption; one
    that comes to its end before that is finished.

    A finished stage returns at once, one with `steps: 0` returns `init`, an interrupted one resumes.
    Raises SupervisionError before any worker starts, RecipeError, ClusterError when workers are lost more than
    `train.max_failures` times, and what `train.loop.run_stage` raises.
    """
    stage = getattr(recipe.train, stage_name)
    if stage.steps == 0:
        return init
    job = _job(recipe, stage_name, run, base, prepared, init, address, utilities, features or {}, pause_at)
    if not _done(job):
        services.require(recipe)
        _check_metric(recipe)
        _check_until(recipe, stage_name, prepared.get("validation", ()))
        calibration.wanted_clips(recipe)  # before hours of training
        for line in supervision_of(recipe, stage_name, prepared["train"]).lines():
            say(line)
        with _shown(job, progress, min(stage.steps, pause_at or stage.steps)):
            if local:
                device = "cuda" if recipe.train.resources.gpu else "cpu"
                run_stage(job, Worker(device=device, threads=_threads(recipe)))
            else:
                _fit(job, recipe)
        if not finished(job.folder):
            return None
        if why := read_manifest(job.folder)["stopped_because"]:
            say(f"{stage_name}: ended after {read_manifest(job.folder)['steps']} of {stage.steps} steps: {why}")
    return checkpoints.best_of(job.folder)


def _job(
    recipe: Recipe, stage_name: str, run: Path, base: Path, prepared: Mapping[str, Sequence[Path]], init: Path | None,
    address: str, utilities: Path | None, features: Mapping[Path, Path], pause_at: int | None,
) -> StageJob:  # fmt: skip
    weights = None if init is None else str(init.absolute() / checkpoints.WEIGHTS)
    train, validation = (
        tuple(str(path.absolute()) for path in prepared.get(part, ())) for part in ("train", "validation")
    )
    run, base = run.absolute(), base.absolute()
    recorded = None if utilities is None else str(utilities.absolute())
    encoded = plain_paths(features)
    return StageJob(
        recipe.to_dict(), stage_name, str(run), str(base), weights, train, validation, address, recorded, encoded, pause_at
    )  # fmt: skip


def _done(job: StageJob) -> bool:
    if not finished(job.folder):
        return False
    made = read_manifest(job.folder).get("address")
    if made != job.address:
        raise CheckpointError(
            f"{job.folder}: holds a stage of another recipe (address {made}, now {job.address}). Use another run folder."
        )
    return True


def _check_metric(recipe: Recipe) -> None:
    metric, known = recipe.train.validation.metric, metrics_of(recipe)
    if metric not in known:
        message = f"{metric!r} is not measured during training. {errors.suggestion(metric, known)}"
        raise RecipeError(recipe.name, [Problem("train.validation.metric", message)])


def _check_until(recipe: Recipe, stage_name: str, validation: Sequence[Path]) -> None:
    until = getattr(recipe.train, stage_name).until
    if until is not None and not sum(read_manifest(folder)["labels"].get("answer", 0) for folder in validation):
        message = (
            f"is {until:g}, but no validation question has a known answer, so that nothing is measured. Name a dataset with "
            "answers in data.validation, or remove it to train all steps"
        )
        raise RecipeError(recipe.name, [Problem(f"train.{stage_name}.until", message)])


def _threads(recipe: Recipe) -> int:
    return max(1, int(recipe.train.resources.cpu))


# ------------------------------------------------------------------------------------------------------ Ray Train


def _fit(job: StageJob, recipe: Recipe) -> None:
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths of datasets and videos may be relative to where the user is
    from ray import train
    from ray.exceptions import RayActorError

    _error_file(job).unlink(missing_ok=True)
    try:
        with _own_interrupts():
            _trainer(job, recipe).fit()
    except train.TrainingFailedError as error:
        _raise_reported(job)
        if _is_bug(error):
            raise
        raise ClusterError(_lost(job, recipe, str(error))) from error
    except RayActorError as error:
        raise ClusterError(_lost(job, recipe, f"Ray Train's controller was lost: {error}")) from error
    _raise_reported(job)


def _trainer(job: StageJob, recipe: Recipe) -> Any:
    from ray import train
    from ray.train.torch import TorchConfig

    from cluenet.ray_data import shows_all
    from cluenet.train.ray_trainer import StageTrainer

    return StageTrainer(
        _on_worker,
        train_loop_config={**asdict(job), "threads": _threads(recipe)},
        scaling_config=scaling_of(recipe.train),
        run_config=train.RunConfig(
            name=f"{job.stage}-{job.address[:10]}",
            storage_path=str(Path(job.run) / "ray"),
            failure_config=failures_of(recipe.train),
            logging_config=train.LoggingConfig(log_level="INFO" if shows_all() else "ERROR"),
        ),
        torch_config=TorchConfig(backend=backend_of(recipe.train)),
    )


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Ray Train answers Ctrl-C by ending its workers and exiting, with code 0 or 1; here it is a KeyboardInterrupt again."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # Ray's own handler exits with the signal's number
            raise
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _is_bug(error: Exception) -> bool:
    """Whether every failed worker raised an exception of its own; a lost one makes the others fail too."""
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    failures = getattr(error, "worker_failures", {}).values()
    return bool(failures) and all(isinstance(failure, UserExceptionWithTraceback) for failure in failures)


def _on_worker(config: dict[str, Any]) -> None:
    """On a worker of Ray Train. An error that is meant for the user ends the run; any other one is Ray's to retry."""
    from ray import train
    from ray.train.torch import get_device

    threads, context = config.pop("threads"), train.get_context()
    job = StageJob(**config)
    worker = Worker(
        context.get_world_rank(), context.get_world_size(), str(get_device()), threads,
        preempted=lambda: train.get_preemption_info() is not None,
    )  # fmt: skip
    try:
        run_stage(job, worker)
    except CluenetError as error:
        atomic_write_json(_error_file(job), {"type": type(error).__name__, "message": str(error)})
    except OtherWorkerError:
        pass


def _error_file(job: StageJob) -> Path:
    return job.folder / "error.json"


def _raise_reported(job: StageJob) -> None:
    """The error of a worker, as it was raised there."""
    file = _error_file(job)
    if file.exists():
        report = json.loads(file.read_text())
        kind = getattr(errors, report["type"], CluenetError)
        error = kind.__new__(kind)
        Exception.__init__(error, report["message"])
        raise error


def _lost(job: StageJob, recipe: Recipe, why: str) -> str:
    steps = checkpoints.steps_of(job.folder)
    resumes = f"from step {steps[-1]}" if steps else "from its start"
    return (
        f"{job.stage} lost its workers more than train.max_failures={recipe.train.max_failures} times. {why.strip()}\n"
        f"The same command resumes {resumes}."
    )


# ------------------------------------------------------------------------------------------------------- progress


@contextmanager
def _shown(job: StageJob, progress: type[Progress], steps: int) -> Iterator[None]:
    """Follows logging.jsonl, which the first worker writes wherever it runs."""
    log = Follower(Path(job.run) / "logging.jsonl")
    with progress(f"Training {job.stage}", total=steps, unit="steps") as display:
        stop = threading.Event()
        thread = threading.Thread(target=_follow, args=(job.stage, log, display, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _follow(stage: str, log: Follower, display: Progress, stop: threading.Event) -> None:
    last = False
    while not last:
        last = stop.wait(SECONDS_BETWEEN_LOOKS)  # once more after the end
        mine = [line for line in log.new_lines() if line["stage"] == stage]  # those of an earlier attempt come at once
        if mine:
            scores = [line["validation/accuracy"] for line in mine if "validation/accuracy" in line]
            display.update(mine[-1]["step"], loss=mine[-1]["loss"], **({"accuracy": scores[-1]} if scores else {}))
