"""Training reports to W&B (offline) and MLflow (a local store): every number, one run per stage, also after a kill; no secrets."""

from __future__ import annotations

import json
import struct
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluenet.errors import CluenetError, RecipeError
from cluenet.recipe import Recipe
from cluenet.run import Run
from cluenet.train import loop, services
from cluenet.train.trackers import read_lines
from cluenet.train.trainer import train_stage
from helpers.evaluation import Silent
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import recipe

SECRET = "hush-0123456789abcdef0123456789abcdef01234567"
needs = {
    name: pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed") for name in services.SERVICES
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=5), prepared_set(folder / "b", clips=4, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=2, seed=100)]}


@pytest.fixture(scope="module", autouse=True)
def local(tmp_path_factory):
    """Nothing leaves this machine, and what is set here is nobody's to write down."""
    here = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
            patch.setenv(name, SECRET)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_MODE", "offline")
        patch.chdir(here)
        yield here


class Line(Silent):
    def update(self, done, total=None, **values):
        self.done = done


def train(settings: Recipe, sets, run: Path) -> Path:
    train_stage(
        settings, "stage1", run=run, base=base_folder(), prepared=sets, init=None, address="a" * 20, progress=Line,
        say=[].append, local=True,
    )  # fmt: skip
    return run


def settings_of(*services_used: str) -> Recipe:
    return recipe(stage1={"steps": 5}, report_to=list(services_used), validation={"every": 5}, checkpoint={"every": 2})


def die_at(step: int, monkeypatch) -> None:
    """The training process ends after this step."""
    original = loop._Loop._report

    def report(self, line):
        original(self, line)
        if line["step"] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Loop, "_report", report)


INSTALLED = [name for name in services.SERVICES if find_spec(name)]


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    return train(settings_of(*INSTALLED), sets, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def resumed(sets, tmp_path_factory):
    """It was killed after step 3; its checkpoint was that of step 2. With what MLflow showed meanwhile."""
    run = tmp_path_factory.mktemp("killed") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_at(3, patch)
        train(settings_of(*INSTALLED), sets, run)
    between = mlflow_runs(run)[1] if "mlflow" in INSTALLED else None
    return train(settings_of(*INSTALLED), sets, run), between


# ------------------------------------------------------------------------------------------------- reading back


def mlflow_runs(run: Path):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run}/mlflow.db")
    experiment = client.get_experiment_by_name("cluenet")
    return client, client.search_runs([experiment.experiment_id])


def mlflow_history(client, run, name):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def wandb_history(folder: Path) -> list[tuple[str, list[dict]]]:
    """(run id, rows) of every file of the folder, oldest first."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        records = [wandb_internal_pb2.Record.FromString(data) for data in records_of(path.read_bytes()[7:])]
        rows = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.history.item
        ]
        found.append((next(record.run.run_id for record in records if record.run.run_id), rows))
    return found


def records_of(text: bytes):
    """LevelDB's log format: blocks of 32 KiB, parts with checksum, length and kind (1 whole, 2 first, 3 middle, 4 last)."""
    block, place, whole = 2**15, 0, b""
    while place + 7 <= len(text):
        left = block - (place + 7) % block  # the header of 7 bytes stands in the first block
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", text[place + 4 : place + 7])
        whole += text[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


# ----------------------------------------------------------------------------------------------------- the tests


@needs["mlflow"]
def test_mlflow_has_every_number_and_setting(run):
    client, (found,) = mlflow_runs(run)
    assert (found.info.run_name, found.info.status) == ("run stage1", "FINISHED")
    for line_name in ("loss", "lr", "labels/answer"):
        logged = [(line["step"], line[line_name]) for line in read_lines(run / "logging.jsonl")]
        assert mlflow_history(client, found, line_name) == logged
    assert [step for step, _ in mlflow_history(client, found, "validation/accuracy")] == [5]
    assert found.data.params["train.stage1.steps"] == "5"
    assert found.data.params["data.train.1.weight"] == "0.5"
    assert json.loads((run / "stage1/trackers.json").read_text())["mlflow"] == found.info.run_id


@needs["wandb"]
def test_wandb_has_every_number(run):
    ((name, rows),) = wandb_history(run)
    assert name == json.loads((run / "stage1/trackers.json").read_text())["wandb"]
    same_as_the_log(rows, run)


def same_as_the_log(rows, run):
    rows, lines = [row for row in rows if "loss" in row], read_lines(run / "logging.jsonl")
    assert [row["_step"] for row in rows] == [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for name in ("loss", "lr", "labels/answer"):
        assert [row[name] for row in rows] == pytest.approx([line[name] for line in lines])


@needs["mlflow"]
def test_a_killed_stage_goes_on_in_its_mlflow_run(resumed):
    run, (broken,) = resumed
    client, (found,) = mlflow_runs(run)
    assert (broken.info.status, found.info.status) == ("FAILED", "FINISHED")
    assert found.info.run_id == broken.info.run_id
    logged = [(line["step"], line["loss"]) for line in read_lines(run / "logging.jsonl")]
    assert mlflow_history(client, found, "loss") == logged, "no step twice, none missing"


@needs["wandb"]
def test_a_killed_stage_goes_on_in_its_wandb_run(resumed):
    run, _ = resumed
    (first, before), (second, after) = wandb_history(run)
    assert first == second
    same_as_the_log([*before, *after], run)


@pytest.mark.skipif(not INSTALLED, reason="neither wandb nor mlflow is installed")
def test_no_secret_is_written_anywhere(run, local):
    files = [path for path in run.rglob("*") if path.is_file()]
    for wanted in INSTALLED:
        assert [path for path in files if wanted in str(path.relative_to(run))], f"{wanted} wrote nothing"
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert list(local.iterdir()) == [], "nothing is left where the command was given"


@pytest.mark.parametrize("name", list(services.SERVICES))
def test_a_missing_package_is_an_error_before_anything_starts(name, tmp_path, monkeypatch):
    monkeypatch.setattr(services, "find_spec", lambda module: None)
    made = Recipe.from_dict({
        "name": "mine", "store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"), "train": {"report_to": [name]},
        "data": {"train": [{"name": "clueworld", "folder": str(tmp_path / "world"), "videos": 2}]},
    })  # fmt: skip
    with pytest.raises(
        RecipeError, match=rf"mine: 1 problem\n  train\.report_to: {name} is not installed.*cluenet\[{name}\]"
    ):
        _ = Run(made).checkpoint
    assert not (tmp_path / "store").exists()


class Refusing:
    """A service that is there when training starts, and away at the second step."""

    id = "7"

    def __init__(self, *_):
        self.ended = []

    def log(self, step, numbers):
        if step == 2:
            raise ConnectionError("no route to host")

    def end(self, *, done):
        self.ended.append(done)


def test_a_service_that_goes_away_ends_training_and_says_how_to_go_on(sets, tmp_path, monkeypatch):
    monkeypatch.setitem(services.SERVICES, "mlflow", Refusing)
    monkeypatch.setattr(services, "find_spec", lambda module: sys)
    with pytest.raises(
        CluenetError, match=r"train\.report_to: mlflow: ConnectionError: no route to host.*remove mlflow from"
    ):
        train(settings_of("mlflow"), sets, tmp_path / "run")
    train(settings_of(), sets, tmp_path / "run")
    assert [line["step"] for line in read_lines(tmp_path / "run/logging.jsonl")] == [1, 2, 3, 4, 5]


def test_settings_become_dotted_names():
    flat = dict(services.flat({"a": {"b": 1, "c": None}, "d": [{"e": "x"}, {"e": True}], "f": [1, 2]}))
    assert flat == {"a.b": "1", "a.c": "null", "d.0.e": "x", "d.1.e": "true", "f": "[1, 2]"}
