"""Elastic workers, failures and preemption: the recipe's settings as Ray Train's own, and a checkpoint before a node goes."""

from __future__ import annotations

import pytest

from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.job import StageJob, Worker
from cluenet.train.loop import run_stage
from cluenet.train.ray_settings import backend_of, failures_of, scaling_of
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import lines_of, recipe


def train_section(**train):
    return Recipe.from_dict({"train": train}).train


def test_elastic_workers_are_rays_range():
    scaling = scaling_of(
        train_section(workers=[2, 4], stage1={"accumulate": 3, "clips_per_batch": 12}, stage2={"steps": 0})
    )
    assert (scaling.min_workers, scaling.max_workers) == (2, 4)
    assert scaling_of(train_section(workers=2)).num_workers == 2


def test_workers_get_their_resources():
    scaling = scaling_of(train_section(resources={"cpu": 3, "gpu": 1}))
    assert (scaling.use_gpu, scaling.resources_per_worker) == (True, {"CPU": 3, "GPU": 1})
    assert not scaling_of(train_section()).use_gpu


def test_failures_and_preemptions_are_counted_apart():
    config = failures_of(train_section(max_failures=5))
    assert (config.max_failures, config.max_preemption_failures, config.preemption_grace_s) == (5, -1, 0.0)
    config = failures_of(train_section(preemption={"max_failures": 2, "grace_seconds": 30}))
    assert (config.max_failures, config.max_preemption_failures, config.preemption_grace_s) == (3, 2, 30.0)


@pytest.mark.parametrize(
    ("strategy", "gpu", "backend"),
    [
        ("ddp", 0, "gloo"), ("ddp", 1, "nccl"), ("fsdp", 1, "nccl"), ("deepspeed", 1, "nccl"),
        ({"name": "fsdp", "cpu_offload": True}, 1, "cpu:gloo,cuda:nccl"),
        ({"name": "fsdp", "cpu_offload": True}, 0, "gloo"),
    ],
)  # fmt: skip
def test_tensors_in_cpu_memory_go_by_gloo(strategy, gpu, backend):
    assert backend_of(train_section(strategy=strategy, resources={"gpu": gpu})) == backend


def test_a_node_that_is_about_to_go_leaves_one_more_checkpoint(tmp_path):
    settings = recipe(
        stage1={"steps": 6}, checkpoint={"every": 100, "keep": 9}, validation={"every": 100}, report_to=[]
    )
    sets = [str(prepared_set(tmp_path / "a", clips=5)), str(prepared_set(tmp_path / "b", clips=3, seed=50))]
    job = StageJob(
        settings.to_dict(), "stage1", str(tmp_path / "run"), str(base_folder()), None, tuple(sets), (), "a" * 20
    )  # fmt: skip
    run_stage(job, Worker(preempted=lambda: len(lines_of(tmp_path / "run")) >= 3))  # warned from step 3 on
    assert checkpoints.steps_of(job.folder) == [3, 6]
