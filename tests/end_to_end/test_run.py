"""`cluenet run`, as a user runs it, on few videos and steps: every folder it promises, found again at once, and asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = [
    "data.train.0.videos=24", "data.validation.0.videos=6", "data.test.0.videos=8",
    "model.backbone.perception_steps=4", "model.backbone.copy_steps=4", "model.backbone.copy_questions=32",
    "train.stage1.steps=4", "train.stage2.steps=2", "train.stage1.clips_per_batch=4", "train.stage2.clips_per_batch=4",
    "train.validation.every=4", "train.validation.max_clips=4", "train.checkpoint.every=2",
]  # fmt: skip


def cluenet(*arguments, timeout=280):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "RAY_worker_niceness": "0"}
    command = [sys.executable, "-m", "cluenet", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )


def folders(root):
    data = [f"data.{split}.0.folder={root}/clueworld" for split in ("train", "validation", "test")]
    return [*SMALL, f"store={root}/store", f"runs={root}/runs", *data]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    done = cluenet("run", "recipes/quickstart.yaml", *folders(root))
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (root / "runs").iterdir()
    return root, run, done


def test_it_leaves_what_it_promises_and_names_it(finished):
    _, run, done = finished
    for name in (
        "recipe.yaml",
        "manifest.json",
        "logging.jsonl",
        "report.html",
        "model/README.md",
        "model/backbone/config.json",
    ):
        assert (run / name).is_file(), name
    assert str(run / "report.html") in done.stdout
    results = json.loads((run / "evaluation" / "clueworld-test" / "results.json").read_text())
    assert results["accuracy"]["overall"]["n"] > 20
    assert {"own", "oracle", "none", "text"} <= set(results["rows"])
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 1, 2]


def test_a_second_run_finds_everything_and_gives_the_same_bytes(finished):
    root, run, _ = finished
    files = [run / "evaluation" / "clueworld-test" / name for name in ("results.json", "samples.jsonl")]
    before = [file.read_bytes() for file in files]
    trained = (run / "stage2" / "manifest.json").stat().st_mtime_ns
    again = cluenet("run", "recipes/quickstart.yaml", *folders(root))
    assert again.returncode == 0, again.stderr[-3000:]
    assert (run / "stage2" / "manifest.json").stat().st_mtime_ns == trained
    assert [file.read_bytes() for file in files] == before


def test_a_base_is_scored_zero_shot(finished):
    """Any Hugging Face folder does: here the backbone before its stages."""
    root, _, _ = finished
    (base,) = (root / "store" / "bases").iterdir()
    done = cluenet("evaluate", "recipes/quickstart.yaml", "--model", base, "--out", root / "zero", *folders(root))
    assert done.returncode == 0, done.stderr[-3000:]
    results = root / "zero" / "evaluation" / "clueworld-test" / "results.json"
    assert list(json.loads(results.read_text())["rows"]) == ["own"]
    assert str(results) in done.stdout


def test_the_model_answers_a_question_with_its_clues(finished):
    root, run, _ = finished
    video = next((root / "clueworld").rglob("*.mp4"))
    options = [word for colour in ("red", "blue", "green") for word in ("--option", colour)]
    done = cluenet("ask", run / "model", video, "which one enters ?", *options, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    text = json.dumps(answer)
    assert '"clues"' in text
    assert any(option in text for option in ("red", "blue", "green"))


def test_asking_about_a_missing_video_is_the_users_mistake(finished):
    _, run, _ = finished
    done = cluenet("ask", run / "model", "nowhere.mp4", "what ?", "--option", "a", "--option", "b")
    assert done.returncode == 2
    assert "nowhere.mp4" in done.stderr
    assert "Traceback" not in done.stderr
