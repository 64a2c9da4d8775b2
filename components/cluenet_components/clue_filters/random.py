"""A strong control: as many clues as asked for, chosen blindly."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from cluenet.contracts import ClueFilter
from cluenet.registry import ComponentConfig, register


@register.clue_filter("random")
class RandomFilter(ClueFilter):
    """Keeps each clue with a fixed probability, whatever it says: the control for every learned filter."""

    class Config(ComponentConfig):
        keep: float = Field(0.5, ge=0, le=1, description="Probability that a clue is kept.")

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor) -> Tensor | None:
        return None

    def keep(self, gate_BQK: Tensor | None, present_BQK: Tensor, *, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(present_BQK.shape, generator=generator).to(present_BQK.device)
        return (draws < self.config.keep) & present_BQK
