"""`train.strategy` — how the workers of a stage share one model: `ddp`, or the long form `{name: deepspeed, stage: 2}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from cluenet.config.base import Section
from cluenet.config.choice import Choice

OWNED_BY_RECIPE = {
    "train_batch_size": "train.<stage>.clips_per_batch",
    "train_micro_batch_size_per_gpu": "train.<stage>.clips_per_batch, .accumulate and train.workers",
    "gradient_accumulation_steps": "train.<stage>.accumulate",
    "managed_gradient_accumulation": "train.<stage>.accumulate",
    "gradient_clipping": "train.<stage>.clip_norm",
    "optimizer": "train.<stage>.optimizer, .lr, .betas and .weight_decay",
    "scheduler": "train.<stage>.warmup_steps and .final_lr_fraction",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "amp": "train.precision",
    "torch_autocast": "train.precision",
    "zero_optimization.stage": "train.strategy.stage",
    "zero_optimization.offload_optimizer.device": "train.strategy.offload_optimizer",
    "zero_optimization.offload_param.device": "train.strategy.offload_parameters",
    "zero_optimization.cpu_offload": "train.strategy.offload_optimizer",
}
"""Keys of a DeepSpeed configuration that the recipe settles elsewhere, and where."""


class Ddp(Section):
    """Every worker holds the whole model; gradients are averaged."""

    name: Literal["ddp"] = "ddp"


class Fsdp(Section):
    """PyTorch's FSDP2 (`fully_shard`): weights, gradients and optimiser states are sharded, layer by layer."""

    name: Literal["fsdp"] = "fsdp"
    reshard: bool = Field(
        True,
        description="Free a layer's gathered weights after its forward pass and gather them again for the backward pass; false "
        "keeps them in between: more memory, less traffic.",
    )
    cpu_offload: bool = Field(False, description="Keep shards, gradients and optimiser states in CPU memory.")
    param_dtype: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="What layers are gathered as. bf16 halves traffic and gathered memory, while shards and optimiser stay "
        "fp32; needs `train.precision: bf16`.",
    )


class DeepSpeed(Section):
    """DeepSpeed's ZeRO: optimiser states (1), gradients too (2), weights too (3) are sharded."""

    name: Literal["deepspeed"] = "deepspeed"
    stage: Literal[1, 2, 3] = Field(
        2, description="What is sharded: 1 optimiser states, 2 gradients too, 3 weights too."
    )
    offload_optimizer: bool = Field(False, description="Keep optimiser states in CPU memory, and update there.")
    offload_parameters: bool = Field(False, description="Keep sharded weights in CPU memory; needs stage 3.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="More of a DeepSpeed configuration, merged in. Keys that other settings of the recipe decide are refused.",
    )

    @model_validator(mode="after")
    def _weights_are_sharded(self) -> DeepSpeed:
        if self.offload_parameters and self.stage != 3:
            raise ValueError(f"offload_parameters needs stage 3, which shards weights; stage is {self.stage}")
        return self

    @model_validator(mode="after")
    def _stage_1_waits(self) -> DeepSpeed:
        if self.stage == 1 and _at(self.config, ("zero_optimization", "overlap_comm")):
            raise ValueError("config.zero_optimization.overlap_comm needs stage 2 or 3")
        return self

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """(dotted path inside `config`, the setting that decides it)."""
        for key, owner in OWNED_BY_RECIPE.items():
            if _at(self.config, key.split(".")) is not None:
                yield key, owner


def _at(config: Any, path: Sequence[str]) -> Any:
    """What stands at a path; None where nothing does."""
    for part in path:
        if not isinstance(config, Mapping) or part not in config:
            return None
        config = config[part]
    return config


Strategy: TypeAlias = Annotated[Ddp | Fsdp | DeepSpeed, Choice("strategy", Ddp, Fsdp, DeepSpeed)]
