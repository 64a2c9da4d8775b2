"""Weights, gradients and optimiser states that one worker holds under each strategy, and the buffers beside them.

Shares follow ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5) and FSDP2; the buffers are those that
DistributedDataParallel, `fully_shard` and DeepSpeed 0.19 allocate with the settings of `cluenet.train.strategies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluenet.config.strategy import Ddp, DeepSpeed, Fsdp

FP32 = 4
ZERO_DEFAULTS = {
    "reduce_bucket_size": 500_000_000, "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_max_live_parameters": 1_000_000_000,
}  # fmt: skip
"""Of DeepSpeed, in parameters; `train.strategy.config.zero_optimization` may say otherwise."""


@dataclass(frozen=True)
class Share:
    """Which part of each state one worker's accelerator holds; 0: none, it is sharded in CPU memory."""

    weights: float = 1.0
    gradients: float = 1.0
    optimizer: float = 1.0
    master: bool = False  # the optimiser works on a copy of the trained weights of its own

    def bytes(self, *, weights: float, gradients: float, moments: float, trained: float) -> dict[str, float]:
        """States in bytes, of these sizes over all workers; `trained`: of the copy that the optimiser may work on."""
        return {
            "weights": weights * self.weights,
            "gradients": gradients * self.gradients,
            "optimizer states": (moments + trained * self.master) * self.optimizer,
        }


def share_of(strategy: Ddp | Fsdp | DeepSpeed, workers: int) -> Share:
    part = 1 / workers
    if isinstance(strategy, Fsdp):
        return Share(0, 0, 0) if strategy.cpu_offload else Share(part, part, part)
    if isinstance(strategy, DeepSpeed):
        states = 0 if strategy.offload_optimizer else part
        gradients = 1 if strategy.stage == 1 else states
        weights = 1 if strategy.stage < 3 else 0 if strategy.offload_parameters else part
        return Share(weights, gradients, states, master=True)
    return Share()


def buffer_bytes(
    strategy: Ddp | Fsdp | DeepSpeed, *, workers: int, trained: int, layers: Sequence[int], total: int
) -> float:
    """trained, total: parameters; layers: of each layer that is gathered by itself."""
    if isinstance(strategy, Fsdp):
        return _gathered_by_fsdp(strategy, layers, total)
    if isinstance(strategy, DeepSpeed):
        return _buckets_of_deepspeed(strategy, trained, total)
    return FP32 * trained if workers > 1 else 0  # gradients once more, in buckets that are reduced


def _gathered_by_fsdp(strategy: Fsdp, layers: Sequence[int], total: int) -> float:
    """What is in no layer is there all the time, with its gradient; of the layers one, its gradient, and the next one."""
    rest, size = total - sum(layers), 2 if strategy.param_dtype == "bf16" else FP32
    at_once = (2 * size + FP32) * max(layers, default=0) if strategy.reshard else size * sum(layers)
    return 2 * FP32 * rest + at_once


def _buckets_of_deepspeed(strategy: DeepSpeed, trained: int, total: int) -> float:
    """Gradients on their way to whom they belong; with stage 3 also the weights that are gathered."""
    settings = {**ZERO_DEFAULTS, **_zero_settings(strategy.config)}
    bucket = min(settings["reduce_bucket_size"], trained)
    live = settings["stage3_max_live_parameters"] + settings["stage3_prefetch_bucket_size"]
    return FP32 * (bucket + (min(live, total) if strategy.stage == 3 else 0))


def _zero_settings(config: Mapping[str, Any]) -> dict[str, float]:
    """DeepSpeed also takes "auto" for these, which means its default."""
    given = config.get("zero_optimization", {})
    return {name: value for name in ZERO_DEFAULTS if isinstance(value := given.get(name), (int, float))}
