"""A run as a person sees it in a terminal: one table, no noise of Ray; with --verbose all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluenet.run_account import STEPS
from helpers import terminal

ROOT = Path(__file__).parents[2]
SMALL = [
    "data.train.0.videos=12", "data.validation.0.videos=4", "data.test.0.videos=4",
    "model.backbone.perception_steps=4", "model.backbone.copy_steps=4", "model.backbone.copy_questions=32",
    "train.stage1.steps=4", "train.stage2.steps=2", "train.stage1.clips_per_batch=4", "train.stage2.clips_per_batch=4",
    "train.validation.every=4", "train.validation.max_clips=4",
]  # fmt: skip
NOISE = ("core_worker", "raylet", "autoscaler", "MapWorker", "Traceback", "WARNING", "INFO", "UserWarning", "pid=")


def run(folder: Path, verb: str, *flags: str) -> terminal.Seen:
    data = [f"data.{split}.0.folder={folder}/clueworld" for split in ("train", "validation", "test")]
    command = [sys.executable, "-m", "cluenet", *flags, verb, "recipes/quickstart.yaml"]
    return terminal.run([*command, *SMALL, f"store={folder}/store", f"runs={folder}/runs", *data], cwd=str(ROOT))


@pytest.mark.slow
def test_a_newcomer_can_read_what_happens(tmp_path):
    seen = run(tmp_path, "run")
    assert seen.code == 0, seen.text
    rows = [row for line in seen.lines if (row := line.split()) and row[0] in ("step", *STEPS)]
    steps = [step for step in STEPS if step not in ("features", "utilities")]
    assert [row[:2] for row in rows[: len(steps) + 1]] == [["step", "state"], *([step, "finished"] for step in steps)]
    assert len([line for line in seen.lines if line.startswith("step ")]) == 1, "the table stands there once"
    assert not [line for line in seen.lines for noise in NOISE if noise in line], seen.text


@pytest.mark.slow
def test_with_verbose_ray_says_everything(tmp_path):
    seen = run(tmp_path, "prepare", "--verbose")
    assert seen.code == 0, seen.text
    assert "Started a local Ray instance" in seen.text.replace("\n", "")
    assert "ray.data" in seen.text or "Ray Data" in seen.text or "Execution plan" in seen.text
    assert any(line.startswith("Decoding clueworld train") for line in seen.lines)
