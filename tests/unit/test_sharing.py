"""A run that takes stage 1 over from another one is, to the last bit, the run that trained it itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cluenet import fingerprint
from cluenet.errors import CheckpointError
from cluenet.folders import atomic_write_json, finished, read_manifest, write_manifest
from cluenet.model.build import build_model
from cluenet.planning import Plan
from cluenet.recipe import Recipe
from cluenet.run import Run
from cluenet.train import checkpoints, sharing
from cluenet.train.export import save_final_model
from cluenet.train.trainer import train_stage
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import lines_of, optimizer_of, recipe, weights_of

ADDRESS = "a" * 20


def with_filter(clue_filter, **train) -> Recipe:
    settings = {"stage1": {"steps": 3, "clips_per_batch": 2}, "stage2": {"steps": 2, "clips_per_batch": 2},
                "validation": {"every": 1}, "report_to": []}  # fmt: skip
    values = recipe(**{**settings, **train}).to_dict()
    values["model"]["clue_filter"] = clue_filter
    return Recipe.from_dict(values)


FILTERS = {
    "adaptive": with_filter("adaptive"),
    "sure": with_filter({"name": "adaptive", "confidence": False}),
    "random": with_filter({"name": "random", "keep": 0.5}),
}
"""The first two have gates of different shapes; the last one would drop half of the clues in validation."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=4), prepared_set(folder / "b", clips=2, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=3, seed=100)]}


def train(settings, sets, run, stage="stage1", init=None):
    address = ADDRESS if stage == "stage1" else "b" * 20
    return train_stage(
        settings, stage, run=run, base=base_folder(), prepared=sets, init=init, address=address, say=lambda line: None,
        local=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory, sets):
    """Each recipe's run, both stages trained by itself."""
    runs = {}
    for name, settings in FILTERS.items():
        run = tmp_path_factory.mktemp(name)
        runs[name] = (run, train(settings, sets, run, "stage2", train(settings, sets, run)))
    return runs


@pytest.mark.parametrize(("mine", "other"), [("adaptive", "random"), ("sure", "adaptive"), ("random", "sure")])
def test_the_result_is_byte_identical_to_that_without_sharing(own, sets, tmp_path, mine, other):
    run, settings = tmp_path / "run", FILTERS[mine]
    assert sharing.take_over(own[other][0], run)
    second = train(settings, sets, run, "stage2", train(settings, sets, run))
    assert weights_of(second) == weights_of(own[mine][1])
    assert optimizer_of(second) == optimizer_of(own[mine][1])
    assert lines_of(run) == lines_of(own[mine][0])


def test_stage_2_starts_with_the_gate_of_its_own_recipe(own, sets, tmp_path):
    values = FILTERS["adaptive"].to_dict()
    values["train"]["stage2"] |= {"steps": 1, "lr": 1e-30, "adamw_lr": 1e-30, "weight_decay": 0}
    sharing.take_over(own["sure"][0], tmp_path)
    settings = Recipe.from_dict(values)
    first = train(settings, sets, tmp_path)
    found = load_file(train(settings, sets, tmp_path, "stage2", first) / checkpoints.WEIGHTS)
    built = build_model(settings.model, base_folder(), seed=settings.seed).state_dict()
    trained = load_file(first / checkpoints.WEIGHTS)
    for name, value in found.items():
        before = built[name] if name.startswith("filter.") else trained[name]
        assert torch.allclose(value, before, rtol=0, atol=1e-20), name


def test_a_model_of_stage_1_alone_is_exported_with_the_filter_of_its_own_recipe(own, tmp_path):
    sharing.take_over(own["sure"][0], tmp_path)
    best = checkpoints.best_of(tmp_path / "stage1")
    save_final_model(
        FILTERS["random"], run=tmp_path, base=base_folder(), checkpoint=best, frame_policy={}, address="c" * 20
    )
    assert finished(tmp_path / "model")


def test_what_is_taken_stays_when_the_other_run_is_deleted(own, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(own["adaptive"][0], other)
    (other / "tensorboard" / "stage1").mkdir(parents=True)
    (other / "tensorboard" / "stage1" / "events").write_text("curve")
    before = weights_of(checkpoints.best_of(other / "stage1"))
    run = tmp_path / "run"
    sharing.take_over(other, run)
    shutil.rmtree(other)
    assert weights_of(checkpoints.best_of(run / "stage1")) == before
    assert (run / "tensorboard" / "stage1" / "events").read_text() == "curve"
    assert json.loads((run / "stage1" / "state.json").read_text())["best"] == read_manifest(run / "stage1")["best"]
    assert read_manifest(run / "stage1")["shared_from"] == "other"
    assert [line["step"] for line in lines_of(run)] == [1, 2, 3]
    assert checkpoints.newest(run / "stage1", ADDRESS) is not None


def test_without_hard_links_it_is_a_copy(own, tmp_path, monkeypatch):
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links between disks")))
    sharing.take_over(own["adaptive"][0], tmp_path)
    best = checkpoints.best_of(tmp_path / "stage1")
    assert (best / checkpoints.WEIGHTS).stat().st_nlink == 1
    assert weights_of(best) == weights_of(checkpoints.best_of(own["adaptive"][0] / "stage1"))


def test_an_attempt_of_its_own_gives_way(own, tmp_path):
    (tmp_path / "stage1" / "checkpoint-000001").mkdir(parents=True)
    lines = [{"stage": "stage1", "step": 1, "loss": 9.0}, {"stage": "stage2", "step": 1, "loss": 8.0}]
    (tmp_path / "logging.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sharing.take_over(own["adaptive"][0], tmp_path)
    assert [(line["stage"], line["step"]) for line in lines_of(tmp_path)] == [
        ("stage1", 1), ("stage1", 2), ("stage1", 3), ("stage2", 1)
    ]  # fmt: skip
    assert lines_of(tmp_path)[0]["loss"] != 9.0
    assert checkpoints.steps_of(tmp_path / "stage1") == [int(checkpoints.best_of(tmp_path / "stage1").name[-6:])]


@pytest.mark.parametrize("when", ["before", "during"])
def test_another_run_that_vanishes_leaves_nothing(own, tmp_path, monkeypatch, when):
    other = tmp_path / "other"
    shutil.copytree(own["adaptive"][0], other)
    if when == "before":
        monkeypatch.setattr(sharing, "_take_log", lambda *_: shutil.rmtree(other))
    else:
        monkeypatch.setattr("os.link", lambda source, target: shutil.rmtree(other) or Path(source).stat())
    assert not sharing.take_over(other, tmp_path / "run")
    assert not finished(tmp_path / "run" / "stage1")
    assert not list((tmp_path / "run").glob(".stage1*"))


def test_killed_in_the_middle_it_is_not_finished(own, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sharing, "write_manifest", killed)
        sharing.take_over(own["adaptive"][0], tmp_path)
    assert not (tmp_path / "stage1").exists()
    assert sharing.take_over(own["adaptive"][0], tmp_path)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]


def test_weights_of_another_model_are_still_refused(own, sets, tmp_path):
    values = FILTERS["random"].to_dict()
    values["model"]["clue_extractor"]["slots"] = 3
    sharing.take_over(own["adaptive"][0], tmp_path)
    model = build_model(Recipe.from_dict(values).model, base_folder(), seed=0)
    file = checkpoints.best_of(tmp_path / "stage1") / checkpoints.WEIGHTS
    with pytest.raises(CheckpointError, match="does not fit the model of the recipe"):
        checkpoints.load_weights(model, file, with_filter=False)
    with pytest.raises(CheckpointError, match="missing or not of this model: extractor"):
        checkpoints.load_weights(torch.nn.Sequential(), file, with_filter=False)


# -------------------------------------------------------------------------------------------------- what is found


def test_a_filter_that_stage_1_teaches_is_part_of_its_address():
    taught = {"stage1": {"losses": {"filter": 1}, "clues": "own"}}
    names = ("adaptive", "keep_all")
    apart, same = (
        {fingerprint.stage1(with_filter(name, **train), "base", ["t", "t"], ["v"]) for name in names}
        for train in (taught, {})
    )
    assert (len(apart), len(same)) == (2, 1)
    assert sharing.brings_filter(with_filter("adaptive", **taught), "stage1")
    assert not sharing.brings_filter(with_filter("adaptive"), "stage1")
    assert sharing.brings_filter(with_filter("adaptive"), "stage2")


def plan_in(runs: Path, name: str = "mine-1") -> Plan:
    plan = Plan(FILTERS["adaptive"])
    plan.__dict__.update(stage1=ADDRESS, stage2="b" * 20, run=runs / name)
    return plan


def test_only_a_finished_stage_of_the_same_address_is_found(tmp_path):
    plan = plan_in(tmp_path)
    assert plan.shared("stage1") is None
    for name, address in (("mine-1", ADDRESS), ("other-2", "c" * 20), ("unfinished-3", None)):
        folder = tmp_path / name / "stage1"
        folder.mkdir(parents=True)
        if address:
            write_manifest(folder, {"address": address})
    assert plan.shared("stage1") is None
    for name in ("z-5", "y-4"):
        write_manifest(tmp_path / name / "stage1", {"address": ADDRESS})
    assert plan.shared("stage1") == tmp_path / "y-4"


def test_the_plan_says_where_stage_1_comes_from(tmp_path):
    plan = plan_in(tmp_path)
    assert plan._stage_step("stage1").state == "new"
    write_manifest(tmp_path / "other-2" / "stage1", {"address": ADDRESS})
    step = plan._stage_step("stage1")
    assert (step.state, step.what) == ("finished", "3 steps, shared from other-2")
    atomic_write_json(tmp_path / "mine-1" / "stage1" / "manifest.json", {"address": ADDRESS})
    assert plan._stage_step("stage1").what == "train 3 steps"
    assert plan._stage_step("stage2").state == "new"


def test_a_run_says_so_once(own, tmp_path):
    shutil.copytree(own["adaptive"][0], tmp_path / "other-2")
    said: list[str] = []
    run = Run(FILTERS["random"], say=said.append)
    run.plan = plan_in(tmp_path)
    run._share("stage1")
    run._share("stage1")
    assert said == ["stage1 taken from run other-2, same address aaaaaaaaaa"]
    assert finished(tmp_path / "mine-1" / "stage1")
