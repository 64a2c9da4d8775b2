"""Killed anywhere, a run goes on as if nothing had happened: same questions, same losses, same weights, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluenet.folders import read_manifest
from cluenet.train import checkpoints
from cluenet.train.job import StageJob
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import Attempts, lines_of, optimizer_of, recipe, run_attempts, weights_of


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50, questions=(1, 4))]
    return train, [prepared_set(folder / "v", clips=5, seed=100)]


def job_in(run: Path, sets, **train) -> StageJob:
    folders = [tuple(map(str, part)) for part in sets]
    return StageJob(recipe(**train).to_dict(), "stage1", str(run), str(base_folder()), None, *folders, address="a" * 20)


def last_checkpoint(job: StageJob) -> Path:
    return job.folder / checkpoints.name_of(checkpoints.steps_of(job.folder)[-1])


KILLS = {
    1: ({"rank": 0, "step": 2}, {"rank": 0, "step": 5}, {"rank": 0, "step": 6, "saving": True}),
    2: ({"rank": 1, "step": 2}, {"rank": 0, "step": 7}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, sets):
    """By number of workers: an uninterrupted run, one that was killed, and one of clue losses; and what each drew."""
    # steps 1..8, checkpoints at 3, 6, 8 and where validation (4, 8) finds a better one
    folder = tmp_path_factory.mktemp("runs")
    attempts = []
    for world_size, kills in KILLS.items():
        whole = job_in(folder / f"whole-{world_size}", sets, stage1={"accumulate": 2})
        killed = replace(whole, run=str(folder / f"killed-{world_size}"))
        attempts += [Attempts(whole, world_size), Attempts(killed, world_size, kills)]
    for world_size, accumulate in ((1, 1), (2, 2)):
        losses = {"answer": 0, "chain": 0, "concept": 2, "attention": 0.5}  # these do not see the order of the options
        stage = {"steps": 4, "accumulate": accumulate, "losses": losses}
        attempts.append(Attempts(job_in(folder / f"clues-{world_size}", sets, stage1=stage), world_size))
    drawn = run_attempts(*attempts)
    pairs = list(zip((attempt.job for attempt in attempts), drawn))
    return {1: [*pairs[:2], pairs[4]], 2: [*pairs[2:4], pairs[5]]}


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(runs, world_size):
    (whole, ids), (killed, ids_killed), _ = runs[world_size]
    assert ids == ids_killed
    assert {place[:2] for place in ids} == {(step, rank) for step in range(8) for rank in range(world_size)}
    lines = lines_of(Path(whole.run))
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines == lines_of(Path(killed.run))
    assert {"loss", "answer", "chain", "concept", "attention", "lr", "grad_norm", "labels/concept"} <= set(lines[0])
    assert checkpoints.steps_of(whole.folder) == checkpoints.steps_of(killed.folder)
    assert weights_of(last_checkpoint(whole)) == weights_of(last_checkpoint(killed))
    assert optimizer_of(last_checkpoint(whole)) == optimizer_of(last_checkpoint(killed))
    manifests = [read_manifest(job.folder) for job in (whole, killed)]
    assert manifests[0] | {"seconds": 0} == manifests[1] | {"seconds": 0}
    assert not list(killed.folder.glob(".*"))


def test_two_workers_see_together_what_one_sees(runs):
    drawn = []
    for world_size in (1, 2):
        _, ids = runs[world_size][0]
        steps: dict[int, list[str]] = {}
        for place in sorted(ids):
            steps.setdefault(place[0], []).extend(ids[place])
        drawn.append(steps)
    assert drawn[0] == drawn[1]
    asked = [lines_of(Path(runs[world_size][0][0].run))[-1]["validation/questions"] for world_size in (1, 2)]
    assert asked[0] == asked[1] > 0


def test_two_workers_learn_what_one_learns(runs):
    """Gradients of workers and micro-batches are averaged: where nothing is random the losses agree, step after step."""
    one, two = (lines_of(Path(runs[world_size][2][0].run)) for world_size in (1, 2))
    assert len(one) == len(two) == 4
    for a, b in zip(one, two):
        for name in ("loss", "concept", "attention", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=2e-3), (a["step"], name)
        assert a["labels/concept"] == b["labels/concept"] == 8
