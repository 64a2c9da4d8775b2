"""A stage that is stopped, paused or damaged: it goes on to the same weights, or says what to do."""

from __future__ import annotations

import threading

import pytest

from cluenet.errors import CheckpointError, StorageError
from cluenet.folders import finished, read_manifest
from cluenet.train import checkpoints
from helpers.stages import Quiet, interrupted, scores_of, train
from helpers.training import lines_of, optimizer_of, recipe, weights_of


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_ctrl_c_leaves_a_run_that_resumes_exactly(sets, tmp_path, stage):
    settings = recipe(stage1={"steps": 6}, stage2={"steps": 6})
    whole = train(settings, sets, tmp_path / "whole", stage=stage)
    interrupted(
        settings, sets, tmp_path / "cut", after=4, stage=stage
    )  # checkpoints are those of steps 3 and, if best, 4
    assert not finished(tmp_path / "cut" / stage)
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    cut = train(settings, sets, tmp_path / "cut", stage=stage)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")
    assert cut.name == whole.name
    assert weights_of(cut) == weights_of(whole)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_paused_stage_goes_on_to_the_same_weights(sets, tmp_path, stage):
    """Pauses at a checkpoint, at none, and after a validation; the last step is no pause."""
    settings = recipe(stage1={"steps": 8}, stage2={"steps": 8}, validation={"every": 4}, report_to=[])
    whole = train(settings, sets, tmp_path / "whole", stage=stage)
    for pause in (3, 5, 6):
        assert train(settings, sets, tmp_path / "cut", stage=stage, pause_at=pause) is None
        assert not finished(tmp_path / "cut" / stage)
        assert (checkpoints.steps_of(tmp_path / "cut" / stage)[-1], len(lines_of(tmp_path / "cut"))) == (pause, pause)
        assert (Quiet.total, Quiet.shown[-1][0]) == (pause, pause)
    cut = train(settings, sets, tmp_path / "cut", stage=stage, pause_at=8)
    assert cut.name == whole.name
    last = [tmp_path / run / stage / "checkpoint-000008" for run in ("whole", "cut")]
    assert weights_of(last[0]) == weights_of(last[1])
    assert optimizer_of(last[0]) == optimizer_of(last[1])
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")


def test_a_stage_that_ends_before_its_pause_is_finished(sets, tmp_path, monkeypatch):
    scores_of(monkeypatch, [0.2, 0.9])
    settings = recipe(stage1={"steps": 20, "until": 0.8}, validation={"every": 2})
    best = train(settings, sets, tmp_path, pause_at=6)
    assert (best.name, read_manifest(tmp_path / "stage1")["steps"]) == ("checkpoint-000004", 4)


def test_an_unfinished_stage_of_another_recipe_is_refused(sets, tmp_path):
    interrupted(recipe(checkpoint={"every": 1}), sets, tmp_path, after=2)
    with pytest.raises(CheckpointError, match="made by another recipe"):
        train(recipe(), sets, tmp_path, address="z" * 20)


@pytest.mark.parametrize(
    ("file", "how"), [(checkpoints.WEIGHTS, "missing"), (checkpoints.OPTIMIZER, "cut"), (checkpoints.STATE, "cut")]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(sets, tmp_path, file, how):
    settings = recipe(checkpoint={"every": 2, "keep": 2})
    interrupted(settings, sets, tmp_path, after=4)
    victim = tmp_path / "stage1" / "checkpoint-000004" / file
    if how == "cut":
        victim.write_bytes(victim.read_bytes()[:50])
    else:
        victim.unlink()
    with pytest.raises(CheckpointError, match=rf"checkpoint-000004/{file}.*Delete .*checkpoint-000004 and run"):
        train(settings, sets, tmp_path)
    for path in victim.parent.iterdir():
        path.unlink()
    victim.parent.rmdir()
    train(settings, sets, tmp_path)
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 9))


@pytest.mark.parametrize("target", ["save_file", "torch.save"])
def test_a_full_disk_is_said_and_leaves_no_half_checkpoint(sets, tmp_path, monkeypatch, target):
    def full(*_):
        raise RuntimeError(
            "[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0: No space left on device"
        )

    monkeypatch.setattr(f"cluenet.train.checkpoints.{target}", full)
    with pytest.raises(
        StorageError, match=r"checkpoint-000003: the disk is full.*run the same command again to resume"
    ):
        train(recipe(), sets, tmp_path)
    assert list((tmp_path / "stage1").iterdir()) == []
