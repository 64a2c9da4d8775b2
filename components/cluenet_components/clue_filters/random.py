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

    version = 2

    class Config(ComponentConfig):
        keep: float = Field(0.5, ge=0, le=1, description="Probability that a clue is kept.")

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor, confidence_BQK: Tensor) -> Tensor | None:
        return None

    def keep(self, gate_BQK: Tensor | None, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        generator, slots = torch.Generator(), present_BQK.shape[-1]
        draws = [torch.rand(slots, generator=generator.manual_seed(seed)) for seed in seeds_BQ.flatten().tolist()]
        draws_BQK = torch.stack(draws).view(present_BQK.shape).to(present_BQK.device)
        return (draws_BQK < self.config.keep) & present_BQK
