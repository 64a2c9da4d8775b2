"""Every clue passes."""

from __future__ import annotations

import torch
from torch import Tensor

from cluenet.contracts import ClueFilter
from cluenet.registry import register


@register.clue_filter("keep_all")
class KeepAllFilter(ClueFilter):
    """Keeps every clue: the ablation of the filter."""

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor, confidence_BQK: Tensor) -> Tensor | None:
        return None

    def keep(self, gate_BQK: Tensor | None, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        return torch.ones_like(present_BQK) & present_BQK
