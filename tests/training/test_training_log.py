"""logging.jsonl and the trackers that follow it."""

from __future__ import annotations

import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluenet.config.train import Losses
from cluenet.folders import read_manifest
from cluenet.train.batches import TrainingBatches
from cluenet.train.trackers import Follower, JsonLines, read_lines
from helpers.stages import train
from helpers.training import recipe


def test_the_log_has_a_line_per_step_of_each_stage(both):
    _, run, *_ = both
    lines = read_lines(run / "logging.jsonl")
    assert [(line["stage"], line["step"]) for line in lines] == [("stage1", i) for i in range(1, 7)] + [
        ("stage2", i) for i in range(1, 5)
    ]
    for line in lines:
        terms = Losses(answer=1, chain=1 if line["stage"] == "stage1" else 0.5, concept=2, attention=0.5, filter=0.2)
        weights = terms.model_dump() if line["stage"] == "stage2" else {**terms.model_dump(), "filter": 0}
        wanted = sum(weight * line[name] for name, weight in weights.items() if weight and name in line)
        assert line["samples_per_second"] == pytest.approx(8 / line["seconds"], rel=0.05)
        if line["stage"] == "stage1":
            assert line["loss"] == pytest.approx(wanted, rel=1e-4)
            assert line["labels/answer"] == line["labels/concept"] == 8
    assert lines[0]["lr"] < lines[1]["lr"] > lines[5]["lr"]
    assert read_manifest(run / "stage1")["labels"] == {"answer": 48, "chain": 48, "concept": 48, "attention": 48}


def test_what_a_step_waited_for_its_batch_is_in_the_log(sets, tmp_path, monkeypatch):
    read = TrainingBatches._clip

    def slowly(*args):
        time.sleep(0.1)
        return read(*args)

    monkeypatch.setattr(TrainingBatches, "_clip", slowly)
    train(recipe(stage1={"steps": 1}, stage2={"steps": 1}), sets, tmp_path)
    (line,) = read_lines(tmp_path / "logging.jsonl")
    assert line["data_seconds"] >= 0.4  # four clips, and nothing was made before


def test_tensorboard_has_every_number_of_the_log(both):
    _, run, *_ = both
    events = EventAccumulator(str(run / "tensorboard" / "stage1"))
    events.Reload()
    lines = [line for line in read_lines(run / "logging.jsonl") if line["stage"] == "stage1"]
    for name in ("loss", "answer", "chain", "concept", "attention", "lr", "validation/accuracy"):
        scalars = [(scalar.step, scalar.value) for scalar in events.Scalars(name)]
        logged = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in scalars] == [step for step, _ in logged]
        assert [value for _, value in scalars] == pytest.approx([value for _, value in logged], rel=1e-5)


def test_without_trackers_there_is_no_tensorboard(sets, tmp_path):
    train(recipe(stage1={"steps": 1}, report_to=[]), sets, tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_a_follower_reads_each_line_once_and_starts_again_on_a_new_file(tmp_path):
    path = tmp_path / "logging.jsonl"
    follower = Follower(path)
    assert follower.new_lines() == []
    log = JsonLines(path, stage="stage1", resume_step=0)
    for step in (1, 2):
        log.write({"stage": "stage1", "step": step})
    assert [line["step"] for line in follower.new_lines()] == [1, 2]
    with path.open("a") as file:
        file.write('{"stage": "stage1", "st')  # killed while writing
    assert follower.new_lines() == []
    JsonLines(path, stage="stage1", resume_step=1).write({"stage": "stage1", "step": 2, "again": True})
    assert follower.new_lines() == [{"stage": "stage1", "step": 1}, {"stage": "stage1", "step": 2, "again": True}]


def test_a_resumed_log_keeps_the_other_stage(tmp_path):
    path = tmp_path / "logging.jsonl"
    log = JsonLines(path, stage="stage1", resume_step=0)
    log.write({"stage": "stage1", "step": 1})
    log = JsonLines(path, stage="stage2", resume_step=0)
    log.write({"stage": "stage2", "step": 1})
    JsonLines(path, stage="stage2", resume_step=0)
    assert read_lines(path) == [{"stage": "stage1", "step": 1}]
