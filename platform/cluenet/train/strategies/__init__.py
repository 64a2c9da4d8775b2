"""How the workers of a stage share one model: one file per strategy of `train.strategy`, one interface (`base.Strategy`)."""

from __future__ import annotations

from cluenet.train.strategies.base import Setup, Strategy

__all__ = ["Setup", "Strategy", "strategy_class"]


def strategy_class(name: str) -> type[Strategy]:
    """Imported when asked for: DeepSpeed and FSDP are slow to import, and not always wanted."""
    if name == "fsdp":
        from cluenet.train.strategies.fsdp import FsdpStrategy

        return FsdpStrategy
    if name == "deepspeed":
        from cluenet.train.strategies.deepspeed import DeepSpeedStrategy

        return DeepSpeedStrategy
    from cluenet.train.strategies.ddp import DdpStrategy

    return DdpStrategy
