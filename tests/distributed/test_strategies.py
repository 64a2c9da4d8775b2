"""Strategies, run for real: two workers over gloo on this machine's CPUs, every loss on, one worker without any label or clue.
Whatever is sharded, they learn what ddp learns, resume bit for bit after a kill, and go on from each other's checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cluenet.cluster import connected
from cluenet.folders import read_manifest
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.job import StageJob
from cluenet.train.trainer import train_stage
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import Attempts, lines_of, optimizer_of, recipe, run_attempts, weights_of

EVERYTHING = {
    "answer": 1, "chain": 1, "concept": 1, "attention": 1, "span": 1, "presence": 1, "filter": 1, "alignment": 1,
    "counterfactual": 1,
}  # fmt: skip
STAGE = {
    "steps": 4, "warmup_steps": 0, "optimizer": "adamw", "lr": 1e-3, "losses": EVERYTHING, "truth_share": [0.5, 0.5],
    "filter_loss": {"measured": 2, "ranking": 1, "budget": 1, "distractors": 0.5}, "visual_dropout": [0.5, 0.0],
}  # fmt: skip
STRATEGIES = {
    "ddp": "ddp",
    "fsdp": "fsdp",
    "fsdp kept": {"name": "fsdp", "reshard": False, "cpu_offload": True},
    "zero1": {"name": "deepspeed", "stage": 1},
    "zero2": {"name": "deepspeed", "stage": 2, "offload_optimizer": True},
    "zero3": {"name": "deepspeed", "stage": 3},
}
SHARDED = [name for name in STRATEGIES if name != "ddp"]
RESUMED = ["fsdp", "zero1", "zero2", "zero3"]
CROSSINGS = {
    "ddp -> zero3": ("ddp", "zero3", 2), "zero3 -> fsdp": ("zero3", "fsdp", 2), "fsdp -> ddp, one worker": ("fsdp", "ddp", 1),
    "ddp -> ddp, one worker": ("ddp", "ddp", 1), "zero1 -> zero2, one worker": ("zero1", "zero2", 1),
}  # fmt: skip
TOLERANCE = 1e-4
"""Relative, of every number in the log after four steps: sums in another order, amplified by training. Measured: below 1e-5."""


def settings(strategy: object) -> Recipe:
    """The key-value cache of the whole video reaches the answer, and workers are elastic: 2 micro-batches in any case."""
    values = recipe(
        workers=[1, 2], report_to=[], validation={"every": 2, "max_clips": 3}, checkpoint={"every": 2, "keep": 9},
        stage1={"steps": 0},
    ).to_dict()  # fmt: skip
    values["train"] |= {"strategy": strategy, "stage2": {**values["train"]["stage2"], **STAGE}}
    values["model"] |= {"reasoner": "clue_chain"}
    values["model"]["clue_extractor"]["presence"] = "learned"
    return Recipe.from_dict(values)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """By strategy, a stage that has not been run."""
    folder = tmp_path_factory.mktemp("strategies")
    train = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50)]
    sets = [tuple(map(str, train)), (str(prepared_set(folder / "v", clips=5, seed=100)),)]
    return {
        name: StageJob(
            settings(strategy).to_dict(), "stage2", str(folder / name), str(base_folder()), None, *sets, address="a" * 20
        )
        for name, strategy in STRATEGIES.items()
    }  # fmt: skip


def poor(job: StageJob, world_size: int = 2, kills: tuple = ()) -> Attempts:
    return Attempts(job, world_size, kills, poor_rank=1)


@pytest.fixture(scope="module")
def whole(jobs):
    """Every strategy without interruption; by name, what each worker drew."""
    return dict(zip(jobs, run_attempts(*map(poor, jobs.values()))))


@pytest.fixture(scope="module")
def killed(jobs, whole):
    others = {name: replace(jobs[name], run=f"{jobs[name].run} killed") for name in RESUMED}
    run_attempts(*(poor(job, kills=({"rank": 1, "step": 3},)) for job in others.values()))
    return others


@pytest.fixture(scope="module")
def crossed(jobs, whole):
    """Jobs that went on from step 2 of another strategy's run."""
    made = {}
    for name, (first, then, _) in CROSSINGS.items():
        made[name] = replace(jobs[then], run=str(Path(jobs[then].run).with_name(name)))
        shutil.copytree(jobs[first].run, made[name].run)
        (made[name].folder / "manifest.json").unlink()
        for step in checkpoints.steps_of(made[name].folder):
            if step > 2:
                shutil.rmtree(made[name].folder / checkpoints.name_of(step))
    drawn = run_attempts(*(poor(job, CROSSINGS[name][2]) for name, job in made.items()))
    return {name: (made[name], ids) for name, ids in zip(made, drawn)}


def assert_close(lines, expected):
    assert len(lines) == len(expected) == STAGE["steps"]
    for line, other in zip(lines, expected):
        assert set(line) == set(other)
        for name, value in other.items():
            assert line[name] == (pytest.approx(value, rel=TOLERANCE) if isinstance(value, float) else value), name


def checkpoint(job: StageJob, step: int) -> Path:
    return job.folder / checkpoints.name_of(step)


@pytest.mark.parametrize("name", SHARDED)
def test_a_sharded_stage_learns_what_ddp_learns(jobs, whole, name):
    assert_close(lines_of(Path(jobs[name].run)), lines_of(Path(jobs["ddp"].run)))
    assert whole[name] == whole["ddp"]
    manifest, other = (read_manifest(jobs[which].folder) for which in (name, "ddp"))
    assert (manifest["flops"], manifest["model"]) == (other["flops"], other["model"])
    assert manifest["strategy"] == settings(STRATEGIES[name]).train.strategy.name


@pytest.mark.parametrize("name", SHARDED)
def test_its_checkpoint_holds_whole_tensors_in_the_layout_of_ddp(jobs, whole, name):
    found, expected = (load_file(checkpoint(jobs[which], 4) / checkpoints.WEIGHTS) for which in (name, "ddp"))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    differences = torch.cat([(found[key] - value).abs().flatten() for key, value in expected.items()])
    assert (
        differences.max() <= 2 * STAGE["lr"] * STAGE["steps"]
    )  # AdamW moves what has no gradient but noise as far as the rest
    assert (differences > 1e-5).float().mean() < 0.01
    mine, others = (moments_of(checkpoint(jobs[which], 4)) for which in (name, "ddp"))
    assert mine.keys() == others.keys()
    largest = max(value.abs().max() for (_, kind), value in others.items() if kind == "exp_avg")
    for (number, kind), value in others.items():
        tolerance = TOLERANCE * largest if kind != "step" else 0
        assert (mine[number, kind] - value).abs().max() <= tolerance, (number, kind)


def moments_of(folder: Path) -> dict[tuple[int, str], torch.Tensor]:
    (state,) = torch.load(folder / checkpoints.OPTIMIZER, weights_only=True)
    return {(number, kind): value for number, values in state["state"].items() for kind, value in values.items()}


@pytest.mark.parametrize("name", RESUMED)
def test_killed_and_resumed_equals_uninterrupted(jobs, killed, name):
    whole, resumed = jobs[name], killed[name]
    assert lines_of(Path(resumed.run)) == lines_of(Path(whole.run))
    for step in (2, 4):
        assert weights_of(checkpoint(resumed, step)) == weights_of(checkpoint(whole, step))
        assert optimizer_of(checkpoint(resumed, step)) == optimizer_of(checkpoint(whole, step))


@pytest.mark.parametrize("name", CROSSINGS)
def test_another_strategy_or_number_of_workers_goes_on(jobs, whole, crossed, name):
    job, ids = crossed[name]
    assert_close(lines_of(Path(job.run)), lines_of(Path(jobs["ddp"].run)))
    drawn = [questions for place, questions in sorted(ids.items())]
    expected = [questions for place, questions in sorted(whole["ddp"].items()) if place[0] >= 2]
    assert drawn == expected
    assert read_manifest(job.folder)["workers"] == CROSSINGS[name][2]


def test_the_poor_worker_had_no_labels(jobs, whole):
    """Else the others prove nothing about a worker without any."""
    for name in STRATEGIES:
        file = Path(jobs[name].run).with_name(f"{name}-attempts") / "labels-of-the-poor.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(lines) == STAGE["steps"]
        assert all(line.pop("labels/answer") for line in lines)
        assert not any(any(line.values()) for line in lines)


@pytest.mark.slow
def test_ray_train_starts_the_elastic_workers_of_a_sharded_stage(jobs, tmp_path):
    job = jobs["zero2"]
    plain = replace(job, run=str(tmp_path / "plain"))
    run_attempts(Attempts(plain, world_size=2))
    chosen = settings(STRATEGIES["zero2"]).to_dict()
    chosen["train"]["resources"] = {"cpu": 0.5}
    sets = {"train": [*map(Path, job.train)], "validation": [*map(Path, job.validation)]}
    with connected():
        best = train_stage(
            Recipe.from_dict(chosen), "stage2", run=tmp_path / "ray", base=base_folder(), prepared=sets, init=None,
            address="a" * 20, say=lambda line: None,
        )  # fmt: skip
    assert lines_of(tmp_path / "ray") == lines_of(tmp_path / "plain")
    assert read_manifest(tmp_path / "ray" / "stage2")["workers"] == 2
    assert weights_of(best) == weights_of(checkpoints.best_of(plain.folder))
