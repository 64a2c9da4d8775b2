"""One threshold for every question."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from cluenet.registry import register
from cluenet_components.clue_filters._gate import GateConfig, GatedFilter


@register.clue_filter("threshold")
class ThresholdFilter(GatedFilter):
    """Keeps the clues whose learned gate is at least a fixed number: the control for what adapts to the question."""

    version = 2

    class Config(GateConfig):
        threshold: float = Field(0.5, ge=0, le=1, description="A clue is kept when its gate is at least this.")

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        return (gate_BQK >= self.config.threshold) & present_BQK
