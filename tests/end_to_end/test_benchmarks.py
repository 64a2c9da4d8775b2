"""Every public benchmark with its own recipe, in its official format and small: prepared and scored zero-shot, in one session of
Ray. A video of each is missing, so that both denominators are seen."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.environments import HERE, ROOT
from helpers.models import base_folder

RECIPES = {path.stem: path for path in sorted((ROOT / "recipes" / "evaluate").glob("*.yaml"))}
SETS = ["clevrer", "eventhallusion", "mvbench", "nextgqa", "nextqa", "star", "videohallucer"]
"""Those with a maker in `helpers.benchmarks`, each with a recipe of its name."""
COMPLETE = {"clevrer": "video_validation/**/*.mp4", "eventhallusion": "**/*.mp4", "videohallucer": "temporal/**/*.mp4"}
"""Where a maker leaves no video out: one of those that match goes."""


def entry(name: str) -> dict[str, Any]:
    """The test entry of the recipe of this name."""
    (found,) = yaml.safe_load(RECIPES[name].read_text())["data"]["test"]
    return found


def make(name: str, root: Path) -> None:
    """Where the recipe looks for it."""
    folder = root / entry(name)["folder"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    getattr(importlib.import_module(f"helpers.benchmarks.{name}"), f"make_{name}")(folder)
    if name in COMPLETE:
        sorted(folder.glob(COMPLETE[name]))[0].unlink()


def recipe() -> dict[str, Any]:
    return {
        "name": "benchmarks", "store": "store", "runs": "runs",
        "data": {
            "sampler": {"name": "uniform", "frames": 4}, "size": {"height": 32, "width": 48}, "decode_workers": 1,
            "test": [entry(name) for name in SETS],
        },
        "model": {"clue_extractor": "none", "clue_filter": "keep_all", "reasoner": "direct"},
        "evaluate": {"bootstrap": 100, "shuffles": 2},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in SETS:
        make(name, folder)
    shutil.copytree(base_folder(), folder / "base")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> subprocess.CompletedProcess[str]:
    done = HERE.call("evaluate", "recipe.yaml", "--model", "base", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module", params=SETS)
def evaluated(request: pytest.FixtureRequest, folder: Path, finished) -> Path:
    """A set's folder of results."""
    (found,) = (folder / "out" / "evaluation").glob(f"{request.param}-*")
    return found


def test_every_recipe_for_evaluation_alone_is_tried() -> None:
    trained = {name for name, path in RECIPES.items() if yaml.safe_load(path.read_text())["data"].get("train")}
    assert sorted(RECIPES.keys() - trained) == SETS


def test_the_benchmark_is_measured_on_all_rows_and_on_answered_ones(evaluated: Path) -> None:
    results = json.loads((evaluated / "results.json").read_text())
    block, counts = results["benchmark"], results["counts"]
    assert counts["quarantined"] > 0
    assert counts["rows"] == counts["asked"] + counts["quarantined"]
    assert block["all"].keys() >= block["answered"].keys()  # a task whose videos are all missing has no answer
    assert max(one["n"] for one in block["all"].values()) > max(one["n"] for one in block["answered"].values())
    for part in block.values():
        for one in part.values():
            assert one["value"] is None or -1 <= one["value"] <= 1
            assert one["n"] > 0 or one["value"] is None
    (name,) = results["results"]
    assert name == evaluated.name
    table, samples = results["results"][name], results["n-samples"][name]
    assert samples == {"original": counts["rows"], "effective": counts["answered"] + counts["quarantined"]}
    assert table["acc,none"] == pytest.approx(
        results["accuracy"]["overall"]["value"] * counts["answered"] / samples["effective"], abs=2e-6
    )
    for name, orders in results["shuffles"]["benchmark"].items():
        assert orders.keys() == block[name].keys()


def test_the_official_files_are_there(evaluated: Path) -> None:
    files = sorted((evaluated / "official").iterdir())
    assert files
    for file in files:
        assert json.loads(file.read_text())


def test_rows_and_questions_add_up(evaluated: Path) -> None:
    results = json.loads((evaluated / "results.json").read_text())
    samples = [json.loads(line) for line in (evaluated / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == results["counts"]["asked"]
    ids = [sample["doc_id"] for sample in samples]
    assert len(set(ids)) == len(ids)
    assert set(ids) < set(range(results["counts"]["rows"]))


def test_the_terminal_shows_the_benchmarks_measures(
    finished: subprocess.CompletedProcess[str], evaluated: Path
) -> None:
    results = json.loads((evaluated / "results.json").read_text())
    assert f"The benchmark's own measures: {evaluated.name}" in " ".join(finished.stdout.split())
    for measure in results["benchmark"]["all"]:
        assert measure in finished.stdout


SMALL = [
    "store=store", "runs=cross", "data.sampler.frames=4", "data.size={height: 32, width: 48}", "data.decode_workers=1",
    "model.backbone={name: tiny, hidden: 64, layers: 2, vision_hidden: 32, perception_steps: 0, copy_steps: 0}",
    "train.resources={cpu: 1}", "train.precision=fp32", "train.tuning=full", "train.gradient_checkpointing=false",
    "train.stage2.steps=2", "train.stage2.clips_per_batch=4", "train.stage2.accumulate=1", "train.validation.every=2",
    "evaluate={bootstrap: 100, shuffles: 2}",
]  # fmt: skip


@pytest.mark.slow
def test_a_model_that_is_taught_on_one_set_is_scored_on_another(folder: Path) -> None:
    done = HERE.call("run", RECIPES["cross_dataset"], *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (folder / "cross").iterdir()
    results = {path.parent.name: json.loads(path.read_text()) for path in run.glob("evaluation/*/results.json")}
    assert sorted(results) == ["nextqa-test", "star-val"]
    for result in results.values():
        assert result["accuracy"]["overall"]["n"] > 0
        assert result["shuffles"]["accuracy"]["std"] is not None
    assert [json.loads(line)["step"] for line in (run / "logging.jsonl").read_text().splitlines()] == [1, 2]
