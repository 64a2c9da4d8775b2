"""How long training steps take, measured in the loop itself: ClueWorld, the quickstart's model, untrained."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluenet.recipe import Recipe, load
from cluenet.run import Run
from cluenet.train.job import StageJob, Worker
from cluenet.train.loop import run_stage
from helpers.environments import ROOT
from helpers.evaluation import Silent

STAGES = ("stage1", "stage2")
EDGE = 4
"""Steps at either end of a training that are not counted: the first are slow, and before the last no data are left to be made."""
SMALL = [
    "data.train=[{name: clueworld, split: train, videos: 96}]", "data.validation=[]", "data.test=[]",
    "model.backbone.perception_steps=0", "model.backbone.copy_steps=0",
]  # fmt: skip


@dataclass
class Steps:
    """What a training left: the loss of every step, and after each the processor's seconds and the clock's."""

    losses: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)

    def note(self) -> None:
        self.processor.append(time.process_time())
        self.clock.append(time.perf_counter())


def per_step(times: Sequence[float]) -> float:
    """Median seconds of a step, without those at the edges."""
    return statistics.median(after - before for before, after in pairwise(times[EDGE:-EDGE]))


@dataclass(frozen=True)
class World:
    """Prepared clips and an untrained backbone."""

    folder: Path
    prepared: Path
    base: Path
    overrides: tuple[str, ...] = ()

    @classmethod
    def made(cls, folder: Path, *overrides: str) -> World:
        """Needs Ray, which is left again."""
        places = (f"store={folder / 'store'}", f"runs={folder}")
        recipe = load(ROOT / "recipes" / "quickstart.yaml", [*SMALL, *places, *overrides])
        with Run(recipe, progress=Silent, say=lambda line: None) as run:
            return cls(folder, run.prepared["train"][0], run.base, (*places, *overrides))

    def recipe(self, stage: str, *, steps: int, questions: int, clips: int) -> Recipe:
        """The quickstart's, with AdamW. Distractors of the gate are other questions of the same row, so rows of one have none."""
        size = {"steps": steps, "clips_per_batch": clips, "questions_per_clip": questions}
        values = load(ROOT / "recipes" / "quickstart.yaml", [*SMALL, *self.overrides]).to_dict()
        values["train"] |= {"report_to": [], "resources": {"cpu": 1}, "checkpoint": {"every": 10_000}}
        for name in STAGES:
            values["train"][name] |= {"optimizer": "adamw", "lr": 1e-3, **(size if name == stage else {"steps": 0})}
        values["train"]["stage2"]["filter_loss"]["distractors"] = 0.0
        return Recipe.from_dict(values)

    def job(self, stage: str, *, features: Path | None = None, **size: int) -> StageJob:
        """In a run folder of its own."""
        run, prepared = self.folder / f"run-{time.time_ns()}", str(self.prepared)
        return StageJob(
            self.recipe(stage, **size).to_dict(), stage, str(run), str(self.base), None, (prepared,), (), address="a" * 20,
            features={} if features is None else {prepared: str(features)},
        )  # fmt: skip


def trained(job: StageJob) -> Steps:
    """By our loop, in this process."""
    found = Steps()

    def report(line: Any) -> None:
        found.losses.append(line["loss"])
        found.note()

    run_stage(job, Worker(report=report))
    return found
