"""Our loop and Hugging Face's Trainer take the same steps: the same losses of the same module, data, optimizer and schedule."""

from __future__ import annotations

import pytest

from cluenet.train.job import StageJob
from helpers.hf_trainer import train_with_hf
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import recipe
from helpers.training_speed import trained

STAGE = {
    "steps": 6, "clips_per_batch": 3, "questions_per_clip": 2, "optimizer": "adamw", "lr": 3e-3, "warmup_steps": 2,
    "clip_norm": 0.5, "filter_loss": {"distractors": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    return tuple(str(prepared_set(folder / name, clips=6, seed=seed)) for name, seed in (("a", 0), ("b", 50)))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("apart", [False, True], ids=["clips", "a row per question"])
def test_the_same_steps(tmp_path, prepared, stage, apart):
    values = recipe(report_to=[], **{stage: STAGE}).to_dict()
    job = StageJob(values, stage, str(tmp_path / "run"), str(base_folder()), None, prepared, (), address="a" * 20)
    ours, theirs = trained(job), train_with_hf(job, tmp_path / "hf", apart=apart)
    assert len(ours.losses) == STAGE["steps"]
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert ours.losses[-1] != pytest.approx(ours.losses[0], rel=1e-2)
    assert len(theirs.processor) == len(ours.processor) == STAGE["steps"]
