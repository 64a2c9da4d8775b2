"""Ctrl-C at any moment: exit code 130, no traceback, and the same command goes on where it stopped."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluenet.folders import finished
from cluenet.planning import Plan
from cluenet.recipe import load
from helpers.environments import HERE

SMALL = {
    "data": {
        "reader": "pyav",
        "fallback_reader": None,
        "size": {"height": 64, "width": 64},
        "train": [{"name": "clueworld", "videos": 40, "folder": "worlds"}],
        "test": [{"name": "clueworld", "split": "test", "videos": 2, "folder": "worlds"}],
    },
    "model": {
        "backbone": {
            "name": "tiny", "hidden": 64, "layers": 3, "vision_hidden": 32, "perception_steps": 0, "copy_steps": 2,
            "copy_questions": 16,
        },
    },
    "train": {
        "stage1": {"steps": 100_000, "clips_per_batch": 2, "questions_per_clip": 1}, "stage2": {"steps": 0},
        "checkpoint": {"every": 2},
    },
    "evaluate": {"questions_per_batch": 32, "bootstrap": 100, "rows": ["own"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    values = {"store": str(folder / "store"), "runs": str(folder / "runs"), **SMALL}
    for split in ("train", "test"):
        values["data"][split][0]["folder"] = str(folder / "worlds")
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return folder


def interrupt(folder: Path, verb: str, when: Callable[[], bool]) -> str:
    """Starts a verb, sends Ctrl-C once `when` holds, and returns what it wrote to standard error."""
    process = HERE.start(verb, "r.yaml", cwd=folder)
    deadline = time.monotonic() + 200
    while not when():
        assert process.poll() is None, f"it ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=90)
    assert process.returncode == 130, error
    assert "interrupted; run the same command again to resume" in error
    assert "Traceback" not in error
    return error


@pytest.mark.slow  # tests/distributed/test_prepare.py kills it too
def test_preparing_resumes(folder: Path):
    (prepared,) = Plan(load(folder / "r.yaml")).prepared("train")
    parts = prepared / "clips"
    interrupt(folder, "prepare", lambda: any(parts.glob("part-*")) or finished(prepared))
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    assert done
    result = HERE.call("prepare", "r.yaml", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert finished(prepared)
    assert {name: (parts / name).stat().st_mtime_ns for name in done} == done


def steps_of(log: Path) -> list[int]:
    lines = log.read_text().splitlines() if log.is_file() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


@pytest.mark.slow
def test_training_resumes(folder: Path):
    run = Plan(load(folder / "r.yaml")).run
    log = run / "logging.jsonl"
    interrupt(folder, "train", lambda: len(steps_of(log)) >= 3)
    done = steps_of(log)
    checkpoints = sorted((run / "stage1").glob("checkpoint-*"))
    assert checkpoints
    assert not finished(run / "stage1")
    started = interrupt(folder, "train", lambda: len(steps_of(log)) > len(done))
    assert "Pretraining" not in started
    assert steps_of(log) == list(range(1, len(steps_of(log)) + 1))
    assert json.loads((run / "steps.json").read_text())["stage1"]["attempts"] == 2


def test_a_request_larger_than_the_cluster_is_refused_before_anything_is_prepared(folder: Path):
    store = folder / "another"
    result = HERE.call("train", "r.yaml", "train.resources.cpu=4096", f"store={store}", cwd=folder)
    assert result.returncode == 2
    assert not list(store.glob("prepared/*"))
    assert "train.workers=1 x train.resources.cpu=4096 asks for 4096 CPU, but the cluster has" in result.stderr
