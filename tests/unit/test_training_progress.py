"""The progress of training, from the log that its first worker writes."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest

from cluenet.progress import Progress
from cluenet.train import trainer
from cluenet.train.trackers import Follower


def test_steps_of_an_earlier_attempt_are_no_work_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_LOOKS", 0.02)
    log = tmp_path / "logging.jsonl"
    lines = [{"stage": "stage1", "step": step, "loss": 1.0} for step in range(1, 201)]
    lines[99]["validation/accuracy"] = 0.5
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    display, stop = Progress("Training stage1", 400, "steps", stream=io.StringIO()), threading.Event()
    thread = threading.Thread(target=trainer._follow, args=("stage1", Follower(log), display, stop))
    thread.start()
    while display.done < 200:
        stop.wait(0.01)
    with log.open("a") as file:
        for line in ({"stage": "stage2", "step": 1, "loss": 9.0}, {"stage": "stage1", "step": 202, "loss": 0.5}):
            file.write(json.dumps(line) + "\n")
    stop.set()
    thread.join()
    assert (display.done, display.values) == (202, {"loss": 0.5, "accuracy": 0.5})
    first, _ = display._first
    assert first == 200
