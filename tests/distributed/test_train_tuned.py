"""Adapters, a trained projector and gradient checkpointing on two workers: ddp and FSDP take the same steps."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from cluenet.train import checkpoints
from cluenet.train.loop import StageJob
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import Attempts, lines_of, recipe, run_attempts

STRATEGIES = ("ddp", "fsdp")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    train = tuple(str(prepared_set(folder / name, clips=6, seed=seed)) for name, seed in (("a", 0), ("b", 50)))
    validation = (str(prepared_set(folder / "v", clips=4, seed=100)),)
    attempts = []
    for strategy in STRATEGIES:
        settings = recipe(
            tuning={"name": "lora", "projector": True}, gradient_checkpointing=True, strategy=strategy, workers=2,
            stage1={"steps": 2, "optimizer": "adamw", "lr": 0.003, "lrs": {"projector": 0.001}},
        )  # fmt: skip
        run = str(folder / strategy)
        job = StageJob(settings.to_dict(), "stage1", run, str(base_folder()), None, train, validation, "a" * 20)
        attempts.append(Attempts(job, world_size=2))
    run_attempts(*attempts)
    return {strategy: folder / strategy for strategy in STRATEGIES}


def test_both_strategies_take_the_same_steps(runs):
    ddp, fsdp = ([line["loss"] for line in lines_of(runs[strategy])] for strategy in STRATEGIES)
    assert len(ddp) == 2
    assert fsdp == pytest.approx(ddp, rel=TOLERANCE)
    assert ddp[1] < ddp[0]


def test_both_write_the_same_adapters_and_no_backbone(runs):
    ddp, fsdp = (load_file(runs[name] / "stage1" / checkpoints.name_of(2) / checkpoints.WEIGHTS) for name in STRATEGIES)
    assert set(ddp) == set(fsdp)
    assert not any("base_layer" in name or "original_module" in name for name in ddp)
    moved = [name for name in ddp if ".lora_B." in name and bool(ddp[name].any())]
    assert moved
    for name in moved:
        assert (ddp[name] - fsdp[name]).abs().max() <= 0.05 * ddp[name].abs().max(), name
