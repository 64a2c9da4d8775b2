"""The recipe's workers and failures as Ray Train's own settings."""

from __future__ import annotations

from typing import Any

from cluenet.config.strategy import Fsdp
from cluenet.config.train import TrainSection


def scaling_of(settings: TrainSection) -> Any:
    """Ray's ScalingConfig: how many workers, and what each gets."""
    from ray.train import ScalingConfig

    resources = {"CPU": settings.resources.cpu, "GPU": settings.resources.gpu}
    return ScalingConfig(
        num_workers=settings.workers,
        use_gpu=settings.resources.gpu > 0,
        resources_per_worker={name: amount for name, amount in resources.items() if amount},
    )


def failures_of(settings: TrainSection) -> Any:
    """Ray's FailureConfig: what is survived. Workers on a node that is taken back need not wait for those that are gone."""
    from ray.train import FailureConfig

    preemption = settings.preemption
    return FailureConfig(
        max_failures=settings.max_failures,
        max_preemption_failures=-1 if preemption.max_failures is None else preemption.max_failures,
        preemption_grace_s=preemption.grace_seconds,
    )


def backend_of(settings: TrainSection) -> str:
    """How workers exchange tensors: those of GPUs by NCCL, those in CPU memory by Gloo."""
    if not settings.resources.gpu:
        return "gloo"
    offloads = isinstance(settings.strategy, Fsdp) and settings.strategy.cpu_offload
    return "cpu:gloo,cuda:nccl" if offloads else "nccl"
