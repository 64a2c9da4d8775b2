"""The training loop of both stages, on one worker. Ray-free: whoever starts it says which worker it is.

Everything random follows from (seed, stage, step, rank), the order of examples is a pure function (`train.plan`), and a
checkpoint is whole or not there: a run that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cluenet.config.train import Stage
from cluenet.errors import CluenetError
from cluenet.folders import finished, write_manifest
from cluenet.model.batch import Batch
from cluenet.model.build import build_model
from cluenet.model.optimizers import lr_factor, optimizers_of
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.batches import TrainingBatches, prefetch
from cluenet.train.checkpoints import TrainerState
from cluenet.train.flops import counted
from cluenet.train.group import Group, mean_of
from cluenet.train.plan import seed_of
from cluenet.train.sharing import STAGE1, brings_filter
from cluenet.train.supervision import has_clues, supervision_of
from cluenet.train.trackers import Trackers, finite
from cluenet.train.utility_store import UtilityStore
from cluenet.train.validation import Validator


@dataclass(frozen=True)
class StageJob:
    """All that a worker needs, as plain values that any process can rebuild. Paths are absolute."""

    recipe: dict[str, Any]  # Recipe.to_dict()
    stage: str  # stage1 or stage2
    run: str
    base: str  # backbone in Hugging Face layout
    init: str | None  # weights to start from; None: the base's
    train: tuple[str, ...]  # prepared sets, in the order of `data.train`
    validation: tuple[str, ...]
    address: str
    utilities: str | None = None  # folder of recorded utilities, for `filter_loss.source: offline`

    @property
    def folder(self) -> Path:
        return Path(self.run) / self.stage


@dataclass(frozen=True)
class Worker:
    """Which worker this is. With `world_size` > 1 the default process group of torch.distributed is up already."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    threads: int = 1
    report: Callable[[Mapping[str, Any]], None] = lambda line: None  # called with every line of logging.jsonl


def run_stage(job: StageJob, worker: Worker) -> None:
    """Train the stage from its newest checkpoint, or from its start, to its manifest.

    Raises CheckpointError, DataError, StorageError, CluenetError when the loss is no longer a number, and OtherWorkerError
    on the workers that are not to blame.
    """
    if finished(job.folder):
        return
    torch.set_num_threads(worker.threads)
    loop = _Loop(job, worker)
    try:
        loop.run()
    finally:
        loop.trackers.close()


class _Loop:
    def __init__(self, job: StageJob, worker: Worker):
        self.job, self.worker = job, worker
        self.group = Group(worker.rank, worker.world_size, worker.device)
        self.recipe = Recipe.from_dict(job.recipe)
        self.stage: Stage = getattr(self.recipe.train, job.stage)
        with self.group.together():
            recipe = self.recipe
            self.model = build_model(recipe.model, Path(job.base), seed=recipe.seed, train=recipe.train)
            self.state = self._resume_or_start()
            self.batches, self.validator = self._batches(), self._validator()
            self.trackers = Trackers(
                Path(job.run), job.stage, resume_step=self.state.step, report_to=self.recipe.train.report_to,
                active=self.group.first,
            )  # fmt: skip
        self.wrapped = self._wrap()

    # -------------------------------------------------------------------------------------------- set-up
    def _resume_or_start(self) -> TrainerState:
        """Loads model and optimisers. All workers see the same checkpoints: nobody writes before the first step."""
        if self.group.first:
            checkpoints.sweep(self.job.folder)
        found = checkpoints.newest(self.job.folder, self.job.address)
        if found:
            checkpoints.load_weights(self.model, found[0] / checkpoints.WEIGHTS)
        elif self.job.init:
            checkpoints.load_weights(self.model, Path(self.job.init), with_filter=brings_filter(self.recipe, STAGE1))
        self.model.to(self.worker.device).train()
        self.optimizers = optimizers_of(self.model, self.stage)
        if found:
            checkpoints.load_optimizers(self.optimizers, found[0])
        return found[1] if found else TrainerState(self.job.address, self.job.stage)

    def _wrap(self) -> nn.Module:
        if self.group.size == 1:
            return self.model
        # a stage may leave parts unused: the gate in stage 1, the extractor with clues from the labels
        return DistributedDataParallel(self.model, find_unused_parameters=True)

    def _batches(self) -> TrainingBatches:
        sets = [PreparedSet(path) for path in self.job.train]
        weights = [dataset.weight for dataset in self.recipe.data.train]  # type: ignore[attr-defined]
        recorded = None if self.job.utilities is None else UtilityStore(Path(self.job.utilities), self.model)
        return TrainingBatches(
            self.model, sets, weights, self.stage, self.group, name=self.job.stage, seed=self.recipe.seed, recorded=recorded
        )  # fmt: skip

    def _validator(self) -> Validator:
        sets = [PreparedSet(path) for path in self.job.validation]
        clips = self.stage.clips_per_batch // (self.group.size * self.stage.accumulate)
        most = self.recipe.train.validation.max_clips
        return Validator(
            sets, metrics_of(self.recipe), self.group, max_clips=most, clips_per_batch=clips,
            filtered=brings_filter(self.recipe, self.job.stage),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- the loop
    def run(self) -> None:
        started, before = time.monotonic(), self.state.seconds
        with closing(prefetch(self.batches(self.state.step, self.stage.steps))) as batches:
            while not self._over():
                with self.group.together():
                    parts = next(batches)
                line = self._step(parts)
                scores = self._validate() if self._validates() else {}
                self.state.seconds = before + time.monotonic() - started
                with self.group.together():
                    self._report({**line, **{f"validation/{name}": value for name, value in scores.items()}})
                    if self._saves():
                        self._save()
        with self.group.together():
            if self.group.first:
                write_manifest(self.job.folder, self._manifest())

    def _over(self) -> bool:
        return self.state.step >= self.stage.steps or self._stops_early() is not None

    def _stops_early(self) -> str | None:
        """Why the stage ends before its last step; it follows from what checkpoints hold, so that it survives a kill."""
        settings, state, until = self.recipe.train.validation, self.state, self.stage.until
        if until is not None and state.best_value is not None and state.best_value >= until:
            return f"{settings.metric} {state.best_value:.4g} reached train.{self.job.stage}.until = {until:g}"
        if settings.patience is not None and state.validations_without_better >= settings.patience:
            return f"{state.validations_without_better} validations without a better one (train.validation.patience)"
        return None

    def _step(self, parts: list[Batch]) -> dict[str, Any]:
        """One optimiser step; the line that describes it."""
        if self.state.flops_per_step is None:
            self.state.flops_per_step = self._flops_of(parts)
        started, step = time.monotonic(), self.state.step
        outputs = [self._micro_step(batch, step, part, last=part == len(parts) - 1) for part, batch in enumerate(parts)]
        factor = self._lr_factor(step)
        norm = self.optimizers.update(factor=factor)
        self.state.step += 1
        numbers = mean_of(outputs, self.group)
        questions = self.stage.clips_per_batch * self.stage.questions_per_clip
        seconds = time.monotonic() - started
        line = {"stage": self.job.stage, "step": step + 1, **numbers, "lr": self.stage.lr * factor, "grad_norm": norm,
                "seconds": round(seconds, 4), "samples_per_second": round(questions / seconds, 2)}  # fmt: skip
        self._check(line)
        for name, value in numbers.items():
            if name.startswith("labels/"):
                term = name.removeprefix("labels/")
                self.state.labels[term] = self.state.labels.get(term, 0) + value
        return line

    def _flops_of(self, parts: list[Batch]) -> int:
        """Of a step of all workers, its micro-batches taken to be as large as the first; in a pass that leaves nothing behind:
        where a counter listens, torch takes other paths to the same gradients, and their last bits differ."""
        flops = len(parts) * counted(lambda: self._micro_step(parts[0], self.state.step, 0, last=False))
        self.wrapped.zero_grad(set_to_none=True)
        return int(self.group.sum(torch.tensor([flops])).item())

    def _lr_factor(self, step: int) -> float:
        stage = self.stage
        return lr_factor(
            step, steps=stage.steps, warmup_steps=stage.warmup_steps, final_fraction=stage.final_lr_fraction
        )

    def _micro_step(self, batch: Batch, step: int, part: int, *, last: bool) -> dict[str, Tensor]:
        """Forward and backward; gradients of all workers are averaged with the last micro-batch."""
        seed = seed_of(self.recipe.seed, self.job.stage, step, self.worker.rank, part)
        torch.manual_seed(seed)
        device, bf16 = torch.device(self.worker.device), self.recipe.train.precision == "bf16"
        alone = isinstance(self.wrapped, DistributedDataParallel) and not last
        with self.wrapped.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                progress = step / self.stage.steps
                output = self.wrapped(batch.to(device), stage=self.stage, seed=seed, progress=progress)
            (output["loss"] / self.stage.accumulate).backward()
        return {name: value.detach() for name, value in output.items()}

    def _check(self, line: Mapping[str, Any]) -> None:
        if name := finite(line):
            known = checkpoints.steps_of(self.job.folder)
            at = f"the newest checkpoint is that of step {known[-1]}" if known else "there is no checkpoint yet"
            raise CluenetError(
                f"{self.job.stage}: {name} is {line[name]} at step {line['step']}; {at}. Lower train.{self.job.stage}.lr "
                f"(now {self.stage.lr:g}), or raise train.{self.job.stage}.warmup_steps (now {self.stage.warmup_steps})."
            )

    def _report(self, line: Mapping[str, Any]) -> None:
        self.trackers.write(line)
        self.worker.report(line)

    # ------------------------------------------------------------------------------ validation, checkpoints
    def _validates(self) -> bool:
        step, every = self.state.step, self.recipe.train.validation.every
        return self.validator.any and (step % every == 0 or step == self.stage.steps)

    def _validate(self) -> dict[str, float]:
        with self.group.together():
            counts = self.validator.count(self.model)
        scores = self.validator.scores(counts)
        value, state = scores[self.recipe.train.validation.metric], self.state
        if state.best_value is None or value > state.best_value:  # a draw goes to the earlier one
            state.best_step, state.best_value, state.validations_without_better = state.step, value, 0
        else:
            state.validations_without_better += 1
        return scores

    def _saves(self) -> bool:
        step, settings = self.state.step, self.recipe.train.checkpoint
        return step % settings.every == 0 or step == self.state.best_step or self._over()

    def _save(self) -> None:
        if self.group.first:
            self.trackers.sync()  # a checkpoint must never be ahead of the log
            keep = self.recipe.train.checkpoint.keep
            checkpoints.save(self.job.folder, self.state, self.model, self.optimizers, keep=keep)

    def _manifest(self) -> dict[str, Any]:
        state = self.state
        best = state.step if state.best_step is None else state.best_step
        return {
            "address": state.address, "stage": state.stage, "steps": state.step, "best": checkpoints.name_of(best),
            "metric": self.recipe.train.validation.metric, "best_value": state.best_value,
            "stopped_early": state.step < self.stage.steps,
            "stopped_because": self._stops_early() if state.step < self.stage.steps else None,
            "seconds": round(state.seconds, 2), "labels": state.labels,
            "supervision": supervision_of(self.recipe, self.job.stage, self.job.train).to_dict(),
            "flops_per_step": state.flops_per_step, "flops": state.step * (state.flops_per_step or 0),
            "workers": self.group.size, "model": self.model.describe(), "init": self.job.init,
            "versions": {name: version(name) for name in ("cluenet", "torch", "transformers")},
        }  # fmt: skip


def metrics_of(recipe: Recipe) -> list[str]:
    """What validation measures: with clues also how well the reasoner does on ground truth."""
    return ["accuracy", "oracle_accuracy"] if has_clues(recipe.model) else ["accuracy"]
