"""The training of a stage, driven by Hugging Face's Trainer: the same module, data, batches, losses, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from cluenet.model.batch import Batch
from cluenet.model.build import build_model
from cluenet.model.optimizers import lr_factor, optimizers_of
from cluenet.model.pipeline import ClueNet
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.records import Example
from cluenet.train.batches import Clip, TrainingBatches
from cluenet.train.group import Group
from cluenet.train.job import StageJob
from cluenet.train.plan import seed_of
from helpers.training_speed import Steps


@dataclass(frozen=True)
class Row:
    """A clip of a step with questions about it."""

    step: int
    prepared: PreparedSet
    clip: str
    questions: tuple[Example, ...]


class Rows(Dataset[tuple[int, Clip]]):
    """The clips and questions that our loop draws, in its order; frames are read when a row is asked for."""

    def __init__(self, batches: TrainingBatches, *, steps: int, apart: bool):
        """`apart`: a row for every question, as ordinary data sets have it; else one for every clip."""
        self.rows = [row for step in range(steps) for row in self._drawn(batches, step, apart)]

    @staticmethod
    def _drawn(batches: TrainingBatches, step: int, apart: bool) -> list[Row]:
        rows = []
        for draw in batches.plan.batch(step):
            prepared = batches.sets[draw.dataset]
            clip = prepared.clip_keys[draw.clip]
            examples = prepared.examples_of(clip)
            asked = tuple(examples[number] for number in batches.plan.questions(draw, len(examples)))
            rows += [Row(step, prepared, clip, part) for part in ([(one,) for one in asked] if apart else [asked])]
        return rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, Clip]:
        row = self.rows[number]
        return row.step, (row.prepared.clip(row.clip), list(row.questions))


class Taught(nn.Module):
    """A ClueNet as the Trainer wants it: from a batch to its loss."""

    def __init__(self, model: ClueNet, recipe: Recipe, stage_name: str):
        super().__init__()
        self.model, self.seed, self.name = model, recipe.seed, stage_name
        self.stage = getattr(recipe.train, stage_name)
        self.losses: list[Tensor] = []

    def collate(self, rows: Sequence[tuple[int, Clip]]) -> dict[str, Any]:
        step = rows[0][0]
        batch = self.model.collate(
            [clip for _, clip in rows], seed=self._seed(step), shuffle_options=True, chain=self.stage.losses.chain > 0
        )  # fmt: skip
        return {"batch": batch, "step": step}

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        torch.manual_seed(self._seed(step))
        device = next(self.parameters()).device
        output = self.model(batch.to(device), stage=self.stage, seed=self._seed(step), progress=step / self.stage.steps)
        self.losses.append(output["loss"].detach())
        return output

    def _seed(self, step: int) -> int:
        return seed_of(self.seed, self.name, step, 0, 0)


class _Clock(TrainerCallback):
    def __init__(self, steps: Steps):
        self.steps = steps

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.note()


def train_with_hf(job: StageJob, out: Path, *, apart: bool = False) -> Steps:
    """Trains the stage of `job` on one CPU thread, without validation and checkpoints. `apart` as in `Rows`. Its stage must use
    AdamW and one micro-batch."""
    recipe, found = Recipe.from_dict(job.recipe), Steps()
    stage = getattr(recipe.train, job.stage)
    model = build_model(recipe.model, Path(job.base), seed=recipe.seed, train=recipe.train)
    taught = Taught(model, recipe, job.stage)
    sets = [PreparedSet(folder) for folder in job.train]
    weights = [dataset.weight for dataset in recipe.data.train]
    batches = TrainingBatches(model, sets, weights, stage, Group(0, 1, "cpu"), name=job.stage, seed=recipe.seed)
    (optimizer,) = optimizers_of(model, stage).all
    schedule = LambdaLR(
        optimizer,
        lambda step: lr_factor(
            step, steps=stage.steps, warmup_steps=stage.warmup_steps, final_fraction=stage.final_lr_fraction
        ),
    )
    Trainer(
        taught, _arguments(stage, out, rows=stage.clips_per_batch * (stage.questions_per_clip if apart else 1)),
        data_collator=taught.collate, train_dataset=Rows(batches, steps=stage.steps, apart=apart),
        callbacks=[_Clock(found)], optimizers=(optimizer, schedule),
    ).train()  # fmt: skip
    found.losses = [float(loss) for loss in taught.losses]
    return found


def _arguments(stage: Any, out: Path, *, rows: int) -> TrainingArguments:
    """Everything off that our loop does not do either."""
    return TrainingArguments(
        str(out), max_steps=stage.steps, per_device_train_batch_size=rows, max_grad_norm=stage.clip_norm, use_cpu=True,
        train_sampling_strategy="sequential", remove_unused_columns=False, dataloader_pin_memory=False, save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
