"""Training steps on a device: speed, operations, memory, the parts of a step; and Hugging Face's Trainer on the same module, loss,
optimizer and batch.

The batch is made beforehand and is the same in every step. The rate is so small that weights keep their values, so both find the same
loss in step after step.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cluenet.config.train import Stage, TrainSection
from cluenet.model.batch import Batch
from cluenet.model.optimizers import optimizers_of
from cluenet.model.pipeline import ClueNet
from cluenet.train.flops import counted
from cluenet.train.group import Group
from cluenet.train.stepping import Stepper
from cluenet.train.strategies import Setup
from cluenet.train.strategies.ddp import DdpStrategy
from helpers.gpu_tier import Scale, asked, clips_of, model_on, peak_bytes, wait_for
from helpers.timed_ddp import TimedDdp

STEADY = 1e-12
"""A rate of learning that no weight notices."""


@dataclass
class Timed:
    """A training: the loss of every step, its end by the clock, and the peak of memory."""

    losses: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    peak: int | None = None

    @property
    def seconds(self) -> float:
        """Of a step, the median, without the first."""
        return statistics.median(after - before for before, after in pairwise(self.ends))


@dataclass
class Training:
    """One stage of one model, its vision tower frozen. Questions about a clip share a row, or `apart`: each has a row of its own
    with the clip."""

    scale: Scale
    device: str
    stage_name: str
    lr: float = STEADY
    optimizer: str = "adamw"
    recompute: bool = False  # gradient checkpointing

    @cached_property
    def model(self) -> ClueNet:
        return model_on(self.scale, self.device, dtype="float32", train=self.settings).train()

    @cached_property
    def settings(self) -> TrainSection:
        stage = {"steps": self.scale.steps + 1, "optimizer": self.optimizer, "lr": self.lr, "warmup_steps": 0}
        tuning = {"name": "full", "vision": False}
        return TrainSection.model_validate({
            "precision": self.scale.precision, "tuning": tuning, "gradient_checkpointing": self.recompute,
            self.stage_name: stage,
        })  # fmt: skip

    @property
    def _recipe(self) -> SimpleNamespace:
        """What steps read of one."""
        return SimpleNamespace(seed=0, train=self.settings)

    @property
    def stage(self) -> Stage:
        return getattr(self.settings, self.stage_name)

    def batch(self, questions: int, *, clips: int | None = None, apart: bool = False) -> Batch:
        examples = [asked(number) for number in range(questions)]
        rows = [[one] for one in examples] if apart else [examples]
        pairs = [(frames, row) for frames in clips_of(self.scale, clips) for row in rows]
        return self.model.collate(pairs, seed=0, shuffle_options=True, chain=self.stage.losses.chain > 0)

    def tokens(self, batch: Batch) -> int:
        """Of the prompts, the questions in the extraction pass and the answer pass, without padding."""
        passes = [batch.answer.packed, *([batch.extraction] if batch.extraction else [])]
        pad = self.model.vlm.pad
        return int(batch.prefix.valid_BP.sum()) + sum(int(rows.ids_BL.ne(pad).sum()) for rows in passes)

    def operations(self, batch: Batch) -> int:
        """Of the forward and the backward pass of a step."""

        def step() -> None:
            self.loss(batch).backward()
            self.model.zero_grad(set_to_none=True)

        return counted(step)

    def loss(self, batch: Batch) -> Tensor:
        with self.autocast():
            return self.model(batch.to(self.device), stage=self.stage, seed=0)["loss"]

    def autocast(self) -> torch.autocast:
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.scale.precision == "bf16")

    # ---------------------------------------------------------------------------------------------- ours
    def ours(self, batch: Batch, *, parts: Counter[str] | None = None) -> Timed:
        """`parts`: gets the seconds of the parts of all steps but the first; the device is waited for before and after each."""
        group = Group(0, 1, self.device)
        setup = Setup(self.settings, self.stage, group, lambda: optimizers_of(self.model, self.stage))
        strategy = DdpStrategy(self.model, setup) if parts is None else TimedDdp(self.model, setup, self._now)
        stepper = Stepper(self._recipe, self.stage_name, group)  # type: ignore[arg-type]
        found = Timed()
        with self._measured(found):
            for number in range(self.stage.steps):
                found.losses.append(float(stepper.step(strategy, [batch], number)["loss"]))
                found.ends.append(self._now())
                if isinstance(strategy, TimedDdp) and number == 0:
                    strategy.seconds.clear()
        if parts is not None and isinstance(strategy, TimedDdp):
            parts.update(strategy.seconds)
        return found

    # -------------------------------------------------------------------------------------------- theirs
    def theirs(self, batch: Batch, folder: Path) -> Timed:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        from helpers.hf_trainer import Taught  # reads prepared sets, for which more must be installed

        found, taught = Timed(), Taught(self.model, self._recipe, self.stage_name)  # type: ignore[arg-type]

        class Clock(TrainerCallback):
            def on_step_end(_, *args: Any, **kwargs: Any) -> None:  # noqa: N805
                found.ends.append(self._now())

        arguments = TrainingArguments(
            str(folder), max_steps=self.stage.steps, per_device_train_batch_size=1, max_grad_norm=self.stage.clip_norm,
            bf16=self.scale.precision == "bf16", use_cpu=self.device == "cpu", remove_unused_columns=False, save_strategy="no",
            train_sampling_strategy="sequential", logging_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        (optimizer,) = optimizers_of(self.model, self.stage).all
        steady = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        with self._measured(found):
            Trainer(
                taught, arguments, data_collator=lambda rows: {"step": rows[0], "batch": batch},
                train_dataset=_Numbers(self.stage.steps), callbacks=[Clock()], optimizers=(optimizer, steady),
            ).train()  # fmt: skip
        found.losses = [float(loss) for loss in taught.losses]
        return found

    # ------------------------------------------------------------------------------------------- helpers
    def _now(self) -> float:
        wait_for(self.device)
        return time.perf_counter()

    @contextmanager
    def _measured(self, found: Timed) -> Iterator[None]:
        """Gradients are gone before and after, and so is what the optimizer kept."""
        self.model.zero_grad(set_to_none=True)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield
        found.peak = peak_bytes(self.device)
        self.model.zero_grad(set_to_none=True)


class _Numbers(torch.utils.data.Dataset[int]):
    """Of the steps. The batch is the same in all."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        return number
