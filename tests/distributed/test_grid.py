"""Grids on Ray: every different step once, failures beside successes, trainers of two workers on two CPUs, kill and go on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from cluenet.errors import GridError
from cluenet.folders import finished, read_manifest
from cluenet.grid import running
from cluenet.grid.graph import graph_of
from cluenet.planning import Plan
from cluenet.recipe import Recipe
from cluenet.run import Run
from helpers.environments import HERE
from helpers.grids import grid_of
from helpers.prepared import prepared_set

pytestmark = pytest.mark.usefixtures("ray_session")

SMALL = {
    "data.reader": "pyav",
    "model.backbone": {"name": "tiny", "hidden": 32, "heads": 2, "layers": 2, "vision_hidden": 16, "perception_steps": 0,
                       "copy_steps": 0},
    "model.clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2},
    "train.stage1": {"steps": 2, "clips_per_batch": 2, "questions_per_clip": 2},
    "train.stage2": {"steps": 1, "clips_per_batch": 2, "questions_per_clip": 2, "losses": {"filter": 0.0}},
    "train.report_to": [], "train.validation.every": 100, "evaluate.rows": ["own"], "evaluate.bootstrap": 100,
}  # fmt: skip
FILTERS = {"model.clue_filter": ["keep_all", "random"]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Settings of every grid here: one store, in which all but the test set is prepared."""
    folder = tmp_path_factory.mktemp("shared")
    settings = {**SMALL, "data.test.0.folder": str(folder / "worlds"), "store": str(folder / "store")}
    plan = Plan(grid_of(folder, axes=FILTERS, set=settings).cells[0].recipe)
    for split, seed in (("train", 0), ("validation", 50)):
        prepared_set(plan.prepared(split)[0], clips=6, seed=seed)
    return settings


def grid_in(folder: Path, shared: dict[str, object], **values):
    return grid_of(folder, set={**shared, **values.pop("set", {})}, **{"axes": FILTERS, "retries": 0, **values})


def run(grid) -> dict:
    """Runs what is left; the content of grid.json."""
    try:
        running.run(grid, grid.cells, address=None, verbose=False, say=lambda line: None)
    finally:
        content, _ = running.write(grid)
    return content


def account(grid) -> dict[str, dict]:
    return json.loads((grid.folder / "steps.json").read_text())


def trained(grid, stage: str) -> list[str]:
    """Addresses of the stages that were trained, once for each time; not those that a run has taken over."""
    manifests = [read_manifest(path) for path in (grid.folder.parent.parent).glob(f"*/{stage}") if finished(path)]
    return [manifest["address"] for manifest in manifests if "shared_from" not in manifest]


@pytest.fixture(scope="module")
def done(shared, tmp_path_factory):
    grid = grid_in(tmp_path_factory.mktemp("grid"), shared, seeds=[0, 1])
    return grid, graph_of(grid), run(grid)


def test_trained_stages_are_the_different_fingerprints(done):
    grid, graph, content = done
    for stage, count in (("stage1", 2), ("stage2", 4)):
        different = {key[1] for key in graph.nodes if key[0] == stage}
        assert len(different) == count
        assert sorted(trained(grid, stage)) == sorted(different)
    assert set(account(grid)) == {" ".join(key) for key, node in graph.nodes.items() if not node.finished}
    assert {step["attempts"] for step in account(grid).values()} == {1}
    assert [cell["state"] for cell in content["cells"]] == ["finished", "finished"]
    assert graph_of(grid).left() == []


def test_the_second_time_nothing_is_done_and_the_files_are_the_same(done):
    grid, _, _ = done
    files = [grid.folder / name for name in ("grid.json", "grid.csv", "grid.html", "steps.json")]
    before = [file.read_bytes() for file in files]
    run(grid)
    assert [file.read_bytes() for file in files] == before


def test_a_new_value_runs_only_its_own_cells(done, shared):
    grid, _, _ = done
    before, stages = account(grid), trained(grid, "stage2")
    larger = grid_in(
        grid.folder.parents[2], shared, axes={"model.clue_filter": ["keep_all", "random", "top_k"]}, seeds=[0, 1]
    )
    content = run(larger)
    new = set(account(larger)) - set(before)
    assert sorted(key.split()[0] for key in new) == ["evaluate", "evaluate", "model", "model", "stage2", "stage2"]
    assert {key: account(larger)[key] for key in before} == before
    assert len(trained(larger, "stage2")) == len(stages) + 2
    assert [cell["state"] for cell in content["cells"]] == ["finished"] * 3


def test_a_failed_cell_is_tried_again_and_reported_and_the_others_go_on(shared, tmp_path):
    grid = grid_in(tmp_path, shared, axes={"train.stage2.lr": [0.001, 1e30]}, retries=1,
                   set={"train.stage2.optimizer": "adamw", "train.stage2.warmup_steps": 0, "train.stage2.steps": 3})  # fmt: skip
    with pytest.raises(GridError, match=r"1 of 2 runs have no result: lr=1e\+30 \(seed 0\)") as caught:
        run(grid)
    assert caught.value.exit_code == 2
    content = json.loads((grid.folder / "grid.json").read_text())
    assert [cell["state"] for cell in content["cells"]] == ["finished", "failed"]
    why = content["cells"][1]["runs"][0]["why"]
    assert why.startswith("stage2: ")
    assert "Lower train.stage2.lr" in why
    failed = [step for step in account(grid).values() if step["error"]]
    assert [step["attempts"] for step in failed] == [2]


def test_bad_cells_are_stopped_and_the_others_have_the_weights_of_a_whole_run(shared, tmp_path):
    """Three cells of 4 steps: the best one of them and the reference go on from the rung at 2. The last two learn nothing."""
    settings = {"train.stage1.steps": 3, "train.validation.every": 1}
    grid = grid_in(
        tmp_path, shared, axes={"train.stage1.lr": [0.02, 1e-6, 1e-7]}, asha={"first": 2, "eta": 2}, set=settings
    )
    content = run(grid)
    decided = json.loads((grid.folder / "asha.json").read_text())["rungs"]
    names = [cell.name for cell in grid.cells]
    assert sorted(one["cells"][0] for one in decided) == sorted(names)
    went_on = {one["cells"][0] for one in decided if one["promoted"]}
    best = max(decided, key=lambda one: (one["accuracy"], -names.index(one["cells"][0])))
    assert {names[0], best["cells"][0]} <= went_on < set(names)
    for cell, made in zip(content["cells"], grid.cells):
        plan = Plan(made.recipe)
        assert cell["state"] == ("finished" if cell["name"] in went_on else "stopped")
        assert finished(plan.run / "stage1") == finished(plan.run / "model") == (cell["name"] in went_on)
        assert [path.name for path in (plan.run / "stage1").glob("checkpoint-000002")] or cell["name"] in went_on
    assert_same_as_a_whole_run(grid.cells[0].recipe, tmp_path)
    files = [grid.folder / name for name in ("grid.json", "asha.json", "steps.json")]
    before = [file.read_bytes() for file in files]
    run(grid)  # nothing is left
    assert [file.read_bytes() for file in files] == before


def assert_same_as_a_whole_run(recipe: Recipe, folder: Path) -> None:
    """Here and without a pause."""
    whole = recipe.model_copy(update={"runs": str(folder / "whole")})
    with Run(whole, local=True, say=lambda line: None) as one:
        model = one.model
    mine = Plan(recipe).run / "model"
    weights = [path.relative_to(model) for path in model.rglob("*.safetensors")]
    assert weights
    assert all((mine / name).read_bytes() == (model / name).read_bytes() for name in weights)


@pytest.mark.slow
def test_trainers_of_two_workers_take_turns_with_small_cells_on_two_cpus(shared, tmp_path):
    """Ray Train inside a task: the trainer starts when both of its workers have room, so that nobody waits for ever."""
    paired = {"workers": [{"label": "one"}, {"label": "two", "set": {"train.workers": 2, "train.stage1.lr": 0.002}}]}
    content = run(grid_in(tmp_path, shared, axes={}, paired=paired))
    assert [cell["state"] for cell in content["cells"]] == ["finished", "finished"]
    two = content["cells"][1]["runs"][0]["folder"]
    assert read_manifest(tmp_path / "runs" / two / "stage1")["workers"] == 2


def test_killed_it_goes_on_where_it_was(shared, tmp_path):
    grid = grid_in(tmp_path, shared, seeds=[0, 1])
    process = HERE.start("grid", "grid.yaml", cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not (found := [path for path in (tmp_path / "runs").glob("*/stage1") if finished(path)]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path: (path / "manifest.json").stat().st_mtime_ns for path in found}
    graph = graph_of(grid)
    assert graph.left()
    content = run(grid)
    assert [cell["state"] for cell in content["cells"]] == ["finished", "finished"]
    assert {path: (path / "manifest.json").stat().st_mtime_ns for path in found} == before
    assert sorted(trained(grid, "stage1")) == sorted({key[1] for key in graph.nodes if key[0] == "stage1"})
