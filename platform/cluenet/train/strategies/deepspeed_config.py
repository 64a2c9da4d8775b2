"""The recipe as a DeepSpeed configuration (https://www.deepspeed.ai/docs/config-json/). Pure functions: no torch, no DeepSpeed."""

from __future__ import annotations

from typing import Any

from cluenet.config.strategy import DeepSpeed
from cluenet.config.train import Stage, TrainSection
from cluenet.recipe import merge

NEVER = 2**31


def deepspeed_config(train: TrainSection, stage: Stage, *, world_size: int) -> dict[str, Any]:
    """What `deepspeed.initialize` gets for one stage on `world_size` workers; `train.strategy.config` is merged in last.

    The optimiser is not in it: torch's AdamW is handed over with the parameter groups of the recipe.
    """
    settings = train.strategy
    assert isinstance(settings, DeepSpeed)
    own = {
        "train_micro_batch_size_per_gpu": train.clips_per_micro_batch(stage),
        "gradient_accumulation_steps": train.micro_batches(stage) // world_size,
        "managed_gradient_accumulation": False,  # the loop says when a step is over
        "gradient_clipping": stage.clip_norm,
        "zero_optimization": _zero(settings),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW also where states are in CPU memory: one optimiser, one result
        "steps_per_print": NEVER,
        **(_autocast() if train.precision == "bf16" else {}),
    }
    return merge(own, settings.config)


def _zero(settings: DeepSpeed) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": settings.stage}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if settings.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    return zero


def _autocast() -> dict[str, Any]:
    """Weights stay fp32, as with the other strategies, and so does what workers exchange: no module is named as safe."""
    return {"torch_autocast": {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}}
