"""`train.strategy`, `train.workers`: what recipes may say, what is refused and how, and the DeepSpeed configuration they become."""

from __future__ import annotations

import re

import pytest

from cluenet.errors import RecipeError
from cluenet.recipe import Recipe
from cluenet.train.plan import place_of
from cluenet.train.strategies.deepspeed_config import deepspeed_config

ADAMW = {"stage1": {"steps": 4, "clips_per_batch": 24}, "stage2": {"steps": 0}}


def recipe(strategy="ddp", **train) -> Recipe:
    return Recipe.from_dict({"train": {**ADAMW, "strategy": strategy, **train}})


def refused(*args, **train) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(*args, **train)
    return str(caught.value)


def config_of(world_size=2, **settings):
    strategy = {"name": "deepspeed", **settings.pop("strategy", {})}
    chosen = recipe(strategy, **{"workers": world_size, **settings}).train
    return deepspeed_config(chosen, chosen.stage1, world_size=world_size)


# -------------------------------------------------------------------------------------------------- what may be said


def test_a_name_is_enough_and_the_long_form_is_the_same():
    assert recipe().train.strategy == recipe({"name": "ddp"}).train.strategy
    assert recipe("deepspeed").train.strategy.stage == 2
    assert recipe("fsdp").train.strategy.reshard
    long = recipe({"name": "deepspeed", "stage": 3, "offload_parameters": True})
    assert Recipe.from_dict(long.to_dict()) == long


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fsdpp", r"train\.strategy: no strategy named 'fsdpp'. Did you mean 'fsdp'\? Known: ddp, deepspeed, fsdp"),
        ({"stage": 2}, r"write a strategy as a name or as \{name: ...*ddp, fsdp, deepspeed"),
        ({"name": "ddp", "stage": 2}, r"train\.strategy\.stage: unknown key"),
        ({"name": "fsdp", "reshards": True}, r"train\.strategy\.reshards: unknown key. Did you mean 'reshard'"),
        ({"name": "deepspeed", "stage": 4}, r"train\.strategy\.stage: .*1, 2 or 3"),
        ({"name": "deepspeed", "offload_parameters": True}, r"offload_parameters needs stage 3.*stage is 2"),
        (
            {"name": "deepspeed", "stage": 1, "config": {"zero_optimization": {"overlap_comm": True}}},
            r"zero_optimization\.overlap_comm needs stage 2 or 3",
        ),
        ({"name": "fsdp", "param_dtype": "bf16"}, r"train\.strategy\.param_dtype: .*train\.precision is fp32"),
    ],
)
def test_what_is_wrong_is_named(strategy, message):
    assert re.search(message, refused(strategy))


def test_param_dtype_goes_with_the_precision():
    assert recipe({"name": "fsdp", "param_dtype": "bf16"}, precision="bf16")


def test_muon_needs_whole_matrices():
    stage = {**ADAMW["stage1"], "optimizer": "muon"}
    message = refused("deepspeed", stage1=stage)
    assert "train.stage1.optimizer: is 'muon'" in message
    assert "ddp or fsdp" in message
    assert recipe("fsdp", stage1=stage)


@pytest.mark.parametrize(
    ("path", "value", "owner"),
    [
        ("train_batch_size", 8, "clips_per_batch"),
        ("train_micro_batch_size_per_gpu", 8, "clips_per_batch"),
        ("gradient_accumulation_steps", 2, "train.<stage>.accumulate"),
        ("optimizer", {"type": "AdamW"}, "train.<stage>.optimizer"),
        ("scheduler", {}, "warmup_steps"),
        ("gradient_clipping", 1.0, "train.<stage>.clip_norm"),
        ("bf16", {"enabled": True}, "train.precision"),
        ("fp16", {"enabled": False}, "train.precision"),
        ("zero_optimization.stage", 3, "train.strategy.stage"),
        ("zero_optimization.offload_optimizer.device", "cpu", "train.strategy.offload_optimizer"),
        ("zero_optimization.offload_param.device", "nvme", "train.strategy.offload_parameters"),
    ],
)
def test_a_key_that_the_recipe_decides_is_refused_with_both_paths(path, value, owner):
    config = value
    for part in reversed(path.split(".")):
        config = {part: config}
    message = refused({"name": "deepspeed", "config": config})
    assert f"train.strategy.config.{path}: is decided by" in message
    assert owner in message


def test_all_conflicts_are_said_at_once():
    message = refused({"name": "deepspeed", "config": {"fp16": {}, "gradient_clipping": 1.0}})
    assert "2 problems" in message


# ----------------------------------------------------------------------------------------- DeepSpeed's configuration


def test_batch_and_clipping_are_the_recipes():
    stage = {**ADAMW["stage1"], "accumulate": 3, "clip_norm": 0.5}
    config = config_of(world_size=4, stage1=stage)
    assert config["train_micro_batch_size_per_gpu"] == 24 // (4 * 3)
    assert config["gradient_accumulation_steps"] == 3
    assert config["gradient_clipping"] == 0.5
    assert "optimizer" not in config
    assert "bf16" not in config


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_fewer_elastic_workers_take_more_micro_batches_of_the_same_size(world_size):
    stage = {**ADAMW["stage1"], "accumulate": 3}
    config = config_of(world_size, workers=[1, 4], stage1=stage)
    assert config["train_micro_batch_size_per_gpu"] == 24 // 12
    assert config["gradient_accumulation_steps"] * world_size == 12


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_zero_stage_and_offloading(stage):
    assert config_of(strategy={"stage": stage})["zero_optimization"] == {"stage": stage}
    zero = config_of(strategy={"stage": stage, "offload_optimizer": True})["zero_optimization"]
    assert zero == {"stage": stage, "offload_optimizer": {"device": "cpu"}}


def test_offloaded_parameters():
    zero = config_of(strategy={"stage": 3, "offload_parameters": True})["zero_optimization"]
    assert zero == {"stage": 3, "offload_param": {"device": "cpu"}}


def test_half_precision_is_autocast_and_workers_exchange_fp32():
    assert "torch_autocast" not in config_of()
    autocast = config_of(precision="bf16")["torch_autocast"]
    assert autocast == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}


def test_other_keys_pass_through_and_merge():
    extra = {
        "zero_optimization": {"reduce_bucket_size": 7, "offload_optimizer": {"pin_memory": True}},
        "communication_data_type": "fp32",
    }
    config = config_of(strategy={"offload_optimizer": True, "config": extra})
    offload = {"device": "cpu", "pin_memory": True}
    assert config["zero_optimization"] == {"stage": 2, "offload_optimizer": offload, "reduce_bucket_size": 7}
    assert config["communication_data_type"] == "fp32"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_reads_it(stage):
    """Its own parser, which refuses unknown keys of `zero_optimization` and batch sizes that do not multiply."""
    from deepspeed.runtime.config import DeepSpeedConfig

    config = config_of(1, strategy={"stage": stage, "offload_optimizer": True}, precision="bf16")
    read = DeepSpeedConfig(config)
    assert (read.zero_optimization_stage, read.gradient_clipping) == (stage, 1.0)
    assert read.train_micro_batch_size_per_gpu == 24
    assert not read.managed_gradient_accumulation


# ------------------------------------------------------------------------------------------------------------ workers


@pytest.mark.parametrize("workers", [0, True, "2", [2], [2, 1], [0, 2], [1, 2, 3], [1.0, 2]])
def test_workers_are_a_number_or_a_range(workers):
    assert re.search(r"train\.workers: must be a number of at least 1, or \[min, max\]", refused(workers=workers))


def test_batches_split_evenly_for_every_number_of_workers():
    assert recipe(workers=[1, 2]).train.max_workers == 2
    message = refused(workers=[2, 4])
    assert "4 micro-batches" in message
    assert "among 3" in message
    assert "accumulate to 3" in message
    recipe(workers=[2, 4], stage1={**ADAMW["stage1"], "accumulate": 3})
    assert "clips_per_batch is 24, not a multiple" in refused(workers=[1, 5])
    recipe(workers=[2, 4], stage1={"steps": 0}, stage2={"steps": 0})  # nothing is split


def test_what_is_drawn_for_a_micro_batch_depends_on_its_place_in_the_step():
    """12 micro-batches: those of 4 workers with 3 each, whoever has them."""
    for workers in (1, 2, 3, 4, 6, 12):
        parts = 12 // workers
        places = [
            place_of(part, rank=rank, parts=parts, accumulate=3) for rank in range(workers) for part in range(parts)
        ]
        assert places == [(rank, part) for rank in range(4) for part in range(3)]
