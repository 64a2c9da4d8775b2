"""As many clues as are useful."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from cluenet.registry import ComponentConfig, register
from cluenet_components.clue_filters._gate import GatedFilter, best


@register.clue_filter("adaptive")
class AdaptiveFilter(GatedFilter):
    """Keeps the clues whose learned gate passes a threshold, at most `max_clues`; none at all if none passes.

    The gate is taught in stage 2 which clues matter: leaving one out must lower the right answer's probability.
    """

    class Config(ComponentConfig):
        threshold: float = Field(0.3, ge=0, le=1, description="A clue is kept when its gate is at least this.")
        max_clues: int | None = Field(
            None, ge=1, description="Keep at most so many, the highest gates; null: all that pass."
        )

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seed: int) -> Tensor:
        passed = (gate_BQK >= self.config.threshold) & present_BQK
        limit = self.config.max_clues
        return passed if limit is None else best(gate_BQK, passed, limit)
