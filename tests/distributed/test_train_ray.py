"""Stages on Ray Train: a lost worker comes back by itself, an error meant for the user is neither retried nor buried."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from cluenet.cluster import connected
from cluenet.errors import DataError
from cluenet.folders import finished
from cluenet.train import checkpoints, ray_trainer, trainer
from cluenet.train.job import StageJob
from cluenet.train.trackers import read_lines
from cluenet.train.trainer import train_stage
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import Attempts, lines_of, optimizer_of, recipe, run_attempts, weights_of

STEPS = 30
SETTINGS = {"workers": 2, "resources": {"cpu": 0.5}, "stage1": {"steps": STEPS}, "validation": {"every": 15}}


@pytest.fixture(scope="module", autouse=True)
def ray():
    with connected():
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=5, seed=100)]}


class WorkerKiller(threading.Thread):
    """SIGKILLs one training worker of this process's own Ray once the log has reached `step`."""

    def __init__(self, log: Path, step: int):
        super().__init__(daemon=True)
        self.log, self.step, self.killed_at, self.beside = log, step, None, []

    def run(self) -> None:
        while not (lines := read_lines(self.log)) or lines[-1]["step"] < self.step:
            time.sleep(0.02)
        family = {process: "".join(process.cmdline()) for process in psutil.Process().children(recursive=True)}
        victim = next(process for process, name in family.items() if "TrainWorker" in name)
        victim.kill()
        self.beside = list(family.values())
        self.killed_at = lines[-1]["step"]


def test_a_lost_worker_comes_back_and_the_result_is_as_if_it_had_not_been_lost(tmp_path, sets):
    settings = recipe(**SETTINGS, max_failures=1)
    killer = WorkerKiller(tmp_path / "ray" / "logging.jsonl", 7)
    killer.start()
    said: list[str] = []
    best = train_stage(
        settings, "stage1", run=tmp_path / "ray", base=base_folder(), prepared=sets, init=None, address="a" * 20,
        say=said.append,
    )  # fmt: skip
    assert killer.killed_at is not None
    assert killer.killed_at < STEPS
    assert any("TrainController" in name for name in killer.beside)
    assert not any("PlacementGroupCleaner" in name for name in killer.beside), "it waits for a dashboard"
    assert "stage1: answer x 1: 27 of 27 questions have labels" in said

    folders = [tuple(map(str, sets[part])) for part in ("train", "validation")]
    job = StageJob(settings.to_dict(), "stage1", str(tmp_path / "plain"), str(base_folder()), None, *folders, "a" * 20)
    run_attempts(Attempts(job, world_size=2))
    twin = replace(job, run=str(tmp_path / "ray"))
    assert lines_of(tmp_path / "ray") == lines_of(tmp_path / "plain")
    assert best == checkpoints.best_of(twin.folder)
    for step in checkpoints.steps_of(job.folder):
        mine, other = twin.folder / checkpoints.name_of(step), job.folder / checkpoints.name_of(step)
        assert weights_of(mine) == weights_of(other)
        assert optimizer_of(mine) == optimizer_of(other)

    again = time.monotonic()
    assert best == train_stage(
        settings, "stage1", run=tmp_path / "ray", base=base_folder(), prepared=sets, init=None, address="a" * 20
    )
    assert time.monotonic() - again < 1.0  # a finished stage starts nothing


@pytest.mark.slow
def test_an_error_of_one_worker_reaches_the_user_as_it_is_and_is_not_retried(tmp_path, sets, monkeypatch):
    lonely = prepared_set(tmp_path / "lonely", clips=1, seed=70)  # drawn by one of the two workers
    (lonely / "clips" / "part-00000.parquet").unlink()
    monkeypatch.setattr(trainer, "_lost", lambda *_: pytest.fail("the run was retried until it failed for good"))
    monkeypatch.setattr(trainer, "_is_bug", lambda *_: pytest.fail("the error was buried in Ray's own"))
    with pytest.raises(DataError, match=r"lonely/clips/part-00000\.parquet: missing or damaged"):
        train_stage(
            recipe(**SETTINGS), "stage1", run=tmp_path / "run", base=base_folder(), init=None, address="b" * 20,
            prepared={**sets, "train": [sets["train"][0], lonely]},
        )  # fmt: skip
    assert not finished(tmp_path / "run" / "stage1")


@pytest.mark.slow
def test_a_stage_of_two_workers_is_left_where_it_is_wanted_and_goes_on_to_the_same_weights(tmp_path, sets):
    settings = recipe(**{**SETTINGS, "stage1": {"steps": 6}, "validation": {"every": 3}})

    def train(run: Path, pause_at: int | None = None) -> Path | None:
        return train_stage(
            settings,
            "stage1",
            run=run,
            base=base_folder(),
            prepared=sets,
            init=None,
            address="c" * 20,
            pause_at=pause_at,
        )

    whole = train(tmp_path / "whole")
    assert train(tmp_path / "cut", 2) is None
    assert not finished(tmp_path / "cut" / "stage1")
    assert train(tmp_path / "cut", 4) is None
    cut = train(tmp_path / "cut")
    assert cut.name == whole.name
    last = [tmp_path / run / "stage1" / checkpoints.name_of(6) for run in ("whole", "cut")]
    assert weights_of(last[0]) == weights_of(last[1])
    assert optimizer_of(last[0]) == optimizer_of(last[1])
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")


def test_the_helper_that_asks_the_dashboard_is_there_where_a_dashboard_is(tmp_path, sets, monkeypatch):
    job = StageJob(recipe(**SETTINGS).to_dict(), "stage1", str(tmp_path), str(base_folder()), None, (), (), "a" * 20)
    made = trainer._trainer(job, recipe(**SETTINGS))
    rays = [type(one) for one in TorchTrainer._create_default_callbacks(made)]
    assert PlacementGroupCleanerCallback in rays
    here = [type(one) for one in made._create_default_callbacks()]
    assert here == [one for one in rays if one is not PlacementGroupCleanerCallback]
    monkeypatch.setattr(ray_trainer, "get_dashboard_url", lambda: "127.0.0.1:8265")
    assert [type(one) for one in made._create_default_callbacks()] == rays
