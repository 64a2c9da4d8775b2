"""The training loop of both stages, on one worker. Ray-free: whoever starts it says which worker it is.

Everything random follows from (seed, stage, step, rank), the order of examples is a pure function (`train.plan`), and a
checkpoint is whole or not there: a run that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from cluenet.config.train import Stage
from cluenet.errors import CluenetError
from cluenet.features import opened
from cluenet.folders import finished, versions, write_manifest
from cluenet.model.batch import Batch
from cluenet.model.build import build_model
from cluenet.model.optimizers import optimizers_of
from cluenet.model.pipeline import ClueNet
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.batches import TrainingBatches, prefetch
from cluenet.train.checkpoints import TrainerState
from cluenet.train.group import Group, process_group
from cluenet.train.job import StageJob, Worker
from cluenet.train.sharing import STAGE1, brings_filter
from cluenet.train.stepping import Stepper
from cluenet.train.strategies import Setup, Strategy, strategy_class
from cluenet.train.supervision import supervision_of
from cluenet.train.trackers import Trackers, finite
from cluenet.train.utility_store import UtilityStore
from cluenet.train.validation import Validator, metrics_of


def run_stage(job: StageJob, worker: Worker) -> None:
    """Train the stage from its newest checkpoint, or from its start, to its manifest; or to `pause_at`, where it gets none.

    Raises CheckpointError, DataError, StorageError, CluenetError when the loss is no longer a number, and OtherWorkerError
    on the workers that are not to blame.
    """
    if finished(job.folder):
        return
    torch.set_num_threads(worker.threads)
    recipe = Recipe.from_dict(job.recipe)
    needs_group = strategy_class(recipe.train.strategy.name).needs_group
    with process_group(worker.device) if needs_group else nullcontext():
        _Loop(job, worker, recipe).run()


class _Loop:
    def __init__(self, job: StageJob, worker: Worker, recipe: Recipe):
        self.job, self.worker, self.recipe = job, worker, recipe
        self.group = Group(worker.rank, worker.world_size, worker.device)
        self.stage: Stage = getattr(recipe.train, job.stage)
        self.stepper, self.warned = Stepper(recipe, job.stage, self.group), False
        with self.group.together():
            found = self._newest()
            self.state = found[1] if found else TrainerState(job.address, job.stage)
            self.model = self._model(found and found[0])
            self.layout, self.facts = checkpoints.layout_of(self.model), self.model.describe()
            self.batches, self.validator = self._batches(), self._validator()
        self.strategy = self._strategy()
        with self.group.together():
            if found:
                checkpoints.load_optimizers(self.strategy, found[0])
            self.trackers = Trackers(
                Path(job.run), job.stage, resume_step=self.state.step, recipe=job.recipe, active=self.group.first
            )

    # -------------------------------------------------------------------------------------------- set-up
    def _newest(self) -> tuple[Path, TrainerState] | None:
        """All workers see the same checkpoints: nobody writes before the first step."""
        if self.group.first:
            checkpoints.sweep(self.job.folder)
        return checkpoints.newest(self.job.folder, self.job.address)

    def _model(self, checkpoint: Path | None) -> ClueNet:
        model = build_model(self.recipe.model, Path(self.job.base), seed=self.recipe.seed, train=self.recipe.train)
        if checkpoint:
            checkpoints.load_weights(model, checkpoint / checkpoints.WEIGHTS)
        elif self.job.init:
            checkpoints.load_weights(model, Path(self.job.init), with_filter=brings_filter(self.recipe, STAGE1))
        return model.to(self.worker.device).train()

    def _strategy(self) -> Strategy:
        train, used = self.recipe.train, None
        chosen = strategy_class(train.strategy.name)
        if self.state.flops_per_step is None or chosen.needs_used:
            with self.group.together():
                parts = next(self.batches(self.state.step, self.state.step + 1))
            self.state.flops_per_step, used = self.stepper.rehearse(self.model, parts, self.state.step)
        setup = Setup(train, self.stage, self.group, lambda: optimizers_of(self.model, self.stage), used)
        return chosen(self.model, setup)

    def _batches(self) -> TrainingBatches:
        sets = [opened(path, self.job.features) for path in self.job.train]
        weights = [dataset.weight for dataset in self.recipe.data.train]  # type: ignore[attr-defined]
        recorded = None if self.job.utilities is None else UtilityStore(Path(self.job.utilities), self.model)
        return TrainingBatches(
            self.model, sets, weights, self.stage, self.group, name=self.job.stage, seed=self.recipe.seed,
            parts=self.recipe.train.micro_batches(self.stage) // self.group.size, recorded=recorded,
        )  # fmt: skip

    def _validator(self) -> Validator:
        sets = [opened(path, self.job.features) for path in self.job.validation]
        return Validator(
            sets, metrics_of(self.recipe), self.group, max_clips=self.recipe.train.validation.max_clips,
            clips_per_batch=self.recipe.train.clips_per_micro_batch(self.stage),
            filtered=brings_filter(self.recipe, self.job.stage),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- the loop
    def run(self) -> None:
        try:
            self._train()
            with self.group.together():
                if self.group.first and self._ended():
                    write_manifest(self.job.folder, self._manifest())
        finally:
            self.trackers.close()
            self.strategy.close()

    def _train(self) -> None:
        started, before = time.monotonic(), self.state.seconds
        with closing(prefetch(self.batches(self.state.step, self.stage.steps))) as batches:
            while not self._over():
                line = self._step(batches)
                scores = self._validate() if self._validates() else {}
                self.state.seconds = before + time.monotonic() - started
                with self.group.together():
                    self._report({**line, **{f"validation/{name}": value for name, value in scores.items()}})
                if self._saves():
                    self._save()

    def _over(self) -> bool:
        """For this attempt."""
        pause_at = self.job.pause_at
        return self._ended() or (pause_at is not None and self.state.step >= pause_at)

    def _ended(self) -> bool:
        return self.state.step >= self.stage.steps or self._stops_early() is not None

    def _stops_early(self) -> str | None:
        """Why the stage ends before its last step; it follows from what checkpoints hold, so that it survives a kill."""
        settings, state, until = self.recipe.train.validation, self.state, self.stage.until
        if until is not None and state.best_value is not None and state.best_value >= until:
            return f"{settings.metric} {state.best_value:.4g} reached train.{self.job.stage}.until = {until:g}"
        if settings.patience is not None and state.validations_without_better >= settings.patience:
            return f"{state.validations_without_better} validations without a better one (train.validation.patience)"
        return None

    def _step(self, batches: Iterator[list[Batch]]) -> dict[str, Any]:
        """One optimiser step on the next batch; the line that describes it."""
        waiting, step = time.monotonic(), self.state.step
        with self.group.together():
            parts = next(batches)
        started = time.monotonic()
        numbers = self.stepper.step(self.strategy, parts, step)
        self.state.step += 1
        questions = self.stage.clips_per_batch * self.stage.questions_per_clip
        seconds = time.monotonic() - started
        line = {"stage": self.job.stage, "step": step + 1, **numbers, "data_seconds": round(started - waiting, 4),
                "seconds": round(seconds, 4), "samples_per_second": round(questions / seconds, 2)}  # fmt: skip
        self._check(line)
        for name, value in numbers.items():
            if name.startswith("labels/"):
                term = name.removeprefix("labels/")
                self.state.labels[term] = self.state.labels.get(term, 0) + value
        return line

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
        with self.strategy.whole() as model, self.group.together():
            counts = self.validator.count(model)
        scores = self.validator.scores(counts)
        value, state = scores[self.recipe.train.validation.metric], self.state
        if state.best_value is None or value > state.best_value:  # a draw goes to the earlier one
            state.best_step, state.best_value, state.validations_without_better = state.step, value, 0
        else:
            state.validations_without_better += 1
        return scores

    def _saves(self) -> bool:
        step, settings = self.state.step, self.recipe.train.checkpoint
        warned, self.warned = self.warned, self.worker.preempted()
        preempted = self.warned and not warned  # one more checkpoint before the node goes
        return preempted or step % settings.every == 0 or step == self.state.best_step or self._over()

    def _save(self) -> None:
        """All workers bring what they hold of the model together; the first one writes it."""
        weights = self.strategy.weights(self.layout.shapes, keep=self.group.first)
        optimizers = self.strategy.optimizer_state(keep=self.group.first)
        with self.group.together():
            if self.group.first:
                self.trackers.sync()  # a checkpoint must never be ahead of the log
                keep = self.recipe.train.checkpoint.keep
                checkpoints.save(self.job.folder, self.state, self.layout, weights, optimizers, keep=keep)

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
            "workers": self.group.size, "strategy": self.recipe.train.strategy.name, "model": self.facts, "init": self.job.init,
            "versions": versions("torch", "transformers"),
        }  # fmt: skip
