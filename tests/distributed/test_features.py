"""The step `features`: on Ray, killed and resumed, and read by every step that looks at clips."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluenet.data import feature_parts
from cluenet.data.features import make_features
from cluenet.errors import CheckpointError, DataError
from cluenet.evaluate.evaluator import evaluate
from cluenet.features import Tower
from cluenet.folders import finished, read_manifest
from cluenet.model.vlm import VisionLanguageModel
from cluenet.recipe import Recipe
from cluenet.run import Run
from cluenet.train.calibration import calibrate
from cluenet.train.offline import record_utilities
from cluenet.train.trainer import train_stage
from helpers import evaluation
from helpers.checkpoints import checkpoint
from helpers.evaluation import Silent
from helpers.models import base_folder, tiny_model
from helpers.prepared import prepared_set
from helpers.training import lines_of, recipe

CLIPS = 8
CONFORMAL = {"name": "adaptive", "threshold": "conformal", "calibration_clips": 3}
KILLED = """
import os, signal, sys
from pathlib import Path
from cluenet.data import feature_parts
from cluenet.data.features import make_features
from cluenet.features import Tower
from cluenet.recipe import Recipe

write = feature_parts.write_part
def killed(path, clips):
    if path.name == "part-00002.safetensors":
        file = path.with_name(f".{path.name}.0.part")
        file.write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, clips)

feature_parts.write_part, feature_parts.CLIPS_PER_PART = killed, 2
store, prepared, base = sys.argv[1:]
make_features(Recipe.from_dict({"store": store}), Path(prepared), Tower(Path(base), {}), local=True)
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(feature_parts, "CLIPS_PER_PART", 2)
    monkeypatch.setattr("cluenet.data.features.CLIPS_PER_PART", 2)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    return {
        "train": [prepared_set(folder / "train", clips=CLIPS)],
        "validation": [prepared_set(folder / "validation", clips=3, seed=100)],
    }


def settings(store: Path, *, workers=1, **changes) -> Recipe:
    stage = {"steps": 2, "clips_per_batch": 2, "questions_per_clip": 2, "optimizer": "adamw", "lr": 1e-3}
    values = recipe(
        stage1=stage, stage2={**stage, "filter_loss": {"source": "offline"}}, tuning={"name": "full", "vision": False},
        workers=workers, report_to=[], validation={"every": 2},
    ).to_dict()  # fmt: skip
    values |= {"store": str(store)}
    values["data"] |= {"features": True, "train": values["data"]["train"][:1]}
    values["model"] |= changes
    return Recipe.from_dict(values)


def made(store: Path, prepared: Path, *, base=None, local=True, workers=1) -> Path:
    return make_features(
        settings(store, workers=workers), prepared, Tower(base or base_folder(), {}), progress=Silent, local=local
    )


def content(folder: Path) -> dict[str, bytes]:
    return {part.name: part.read_bytes() for part in sorted(folder.glob("*.safetensors"))}


# ------------------------------------------------------------------------------------------------------------ making


def test_two_workers_of_ray_make_the_same(sets, tmp_path, ray_session):
    (prepared,) = sets["train"]
    wanted, found = made(tmp_path / "a", prepared), made(tmp_path / "b", prepared, local=False, workers=2)
    assert content(found) == content(wanted)
    assert len(content(found)) == CLIPS / 2
    manifests = [{k: v for k, v in read_manifest(folder).items() if k != "run"} for folder in (wanted, found)]
    assert manifests[0] == manifests[1]


def test_what_stops_a_worker_is_raised_here(sets, tmp_path, ray_session):
    base = tmp_path / "base"
    VisionLanguageModel.load(base_folder()).save(base)
    tower = Tower(base, {})
    assert tower.address
    (base / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="its weights cannot be read"):
        make_features(settings(tmp_path), sets["train"][0], tower, progress=Silent)
    assert not list((tmp_path / "features").glob("*/manifest.json"))


def test_killed_it_goes_on_with_the_parts_that_are_there(sets, tmp_path):
    (prepared,) = sets["train"]
    wanted = made(tmp_path / "whole", prepared)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(prepared), str(base_folder())]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    (folder,) = (tmp_path / "store" / "features").iterdir()
    assert sorted(content(folder)) == ["part-00000.safetensors", "part-00001.safetensors"]
    assert not finished(folder)
    assert made(tmp_path / "store", prepared) == folder
    assert read_manifest(folder)["run"]["parts"] == {"made": 2, "reused": 2}
    assert content(folder) == content(wanted)
    assert not list(folder.glob(".*"))


# ----------------------------------------------------------------------------------------------------------- reading


def blind(monkeypatch):
    monkeypatch.setattr(VisionLanguageModel, "tower", lambda *_: pytest.fail("the tower was run"))


def test_training_recording_and_calibration_read_features_and_give_the_same(sets, tmp_path, monkeypatch):
    """Stage 1 with its validation, the utilities of its model, the calibration of a filter."""
    chosen, calibrated = settings(tmp_path), settings(tmp_path, clue_filter=CONFORMAL)

    def go(run: Path, features: dict[Path, Path]) -> tuple[list, dict, dict]:
        common = {"run": run, "base": base_folder(), "features": features, "local": True}
        best = train_stage(chosen, "stage1", prepared=sets, init=None, address="1" * 20, say=lambda _: None, **common)
        folder = record_utilities(chosen, train=sets["train"], checkpoint=best, address="u" * 20, **common)
        facts = calibrate(tiny_model(clue_filter=CONFORMAL), calibrated, sets["validation"], features)
        return lines_of(run), read_manifest(folder)["clues"], facts

    lines, clues, facts = go(tmp_path / "live", {})
    features = {one: made(tmp_path, one) for split in sets.values() for one in split}
    blind(monkeypatch)
    found, found_clues, found_facts = go(tmp_path / "encoded", features)
    assert (found_clues, found_facts) == (clues, facts)
    assert len(found) == len(lines) == 2
    for mine, theirs in zip(found, lines):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-5)), name
    assert "validation/accuracy" in found[-1]


def test_evaluation_reads_features_and_gives_the_same_answers(tmp_path, monkeypatch):
    chosen = evaluation.recipe(store=str(tmp_path))
    model = evaluation.model_folder(tmp_path / "model", recipe=chosen)
    prepared = evaluation.prepared_test(tmp_path / "prepared", recipe=chosen)
    features = {prepared: make_features(chosen, prepared, Tower(model / "backbone", {}), progress=Silent, local=True)}

    def answered(out: str, **options):
        return evaluate(
            chosen, model_folder=model, prepared=[prepared], out=tmp_path / out, progress=Silent, local=True, **options
        )["fake-test"]

    wanted = answered("live")
    blind(monkeypatch)
    found = answered("encoded", features=features)
    assert found["accuracy"] == wanted["accuracy"]
    assert found["rows"].keys() == wanted["rows"].keys()


# ----------------------------------------------------------------------------------------------------------- a whole run


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_run_makes_features_once_shares_them_and_reads_nothing_else(tmp_path, ray_session):
    """Damaged features stop what reads them: training of another seed, which shares them, and evaluation."""
    clueworld = {"name": "clueworld", "folder": str(tmp_path / "clueworld")}
    stage = {"steps": 1, "clips_per_batch": 2, "questions_per_clip": 2}
    values = {
        "name": "features", "store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"),
        "data": {
            "features": True, "size": {"height": 32, "width": 32}, "sampler": {"name": "uniform", "frames": 4},
            **{split: [{**clueworld, "split": split, "videos": 2}] for split in ("train", "test")},
        },
        "model": {
            "backbone": {"name": "hf_vlm", "path": str(checkpoint("qwen3_vl"))}, "clue_filter": "keep_all",
            "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2}, "reasoner": "clue_chain",
        },
        "train": {"tuning": "lora", "stage1": stage, "stage2": {"steps": 0}, "report_to": []},
        "evaluate": {"rows": ["own"]},
    }  # fmt: skip
    said = {"say": lambda line: None}

    def steps(run: Run) -> list[tuple[str, str]]:
        return [(step.name, step.state) for step in run.plan.steps() if step.name in ("prepare", "features")]

    with Run(Recipe.from_dict(values), **said) as run:
        assert steps(run) == [("prepare", "new")] * 2 + [("features", "new")] * 2
        assert run.results["clueworld-test"]["accuracy"]["overall"]["n"] > 5
    after = Run(Recipe.from_dict(values), **said)
    assert steps(after) == [("prepare", "finished")] * 2 + [("features", "finished")] * 2
    assert (
        after.account.steps()["features"]["attempts"] == 2
    )  # training's before stage 1, the test set's before evaluation
    folders = {step.what.split()[-1]: step.folder for step in after.plan.steps() if step.name == "features"}
    assert sorted(folder.parent for folder in folders.values()) == [tmp_path / "store" / "features"] * 2
    manifest = folders["train"] / "manifest.json"
    aside = manifest.rename(tmp_path / "manifest.json")
    assert ("features", "resumable") in steps(Run(Recipe.from_dict(values), **said))
    aside.rename(manifest)
    for split, values_now in (("train", {**values, "seed": 1}), ("test", {**values, "evaluate": {"rows": ["none"]}})):
        part = folders[split] / "part-00000.safetensors"
        whole = part.read_bytes()
        part.write_bytes(b"damaged")
        with (
            Run(Recipe.from_dict(values_now), **said) as run,
            pytest.raises(DataError, match=rf"{part}: missing or damaged"),
        ):
            _ = run.results
        part.write_bytes(whole)
    assert len(list((tmp_path / "store" / "features").iterdir())) == 2
