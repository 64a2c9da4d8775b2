"""A fixed number of clues, the ones the gate likes best."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from cluenet.registry import register
from cluenet_components.clue_filters._gate import GateConfig, GatedFilter, best


@register.clue_filter("top_k")
class TopKFilter(GatedFilter):
    """Keeps the k clues with the highest learned gates, however low those are."""

    version = 2

    class Config(GateConfig):
        k: int = Field(1, ge=1, description="How many clues are kept.")

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        return best(gate_BQK, present_BQK, self.config.k)
