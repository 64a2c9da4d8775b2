"""The clues that help, by hindsight."""

from __future__ import annotations

from torch import Tensor

from cluenet.contracts import ClueFilter
from cluenet.registry import register


@register.clue_filter("oracle_utility")
class OracleUtilityFilter(ClueFilter):
    """Keeps the clues that raise the right answer's probability (exact utility above 0). It sees the right answer: an upper
    bound for evaluation, and no model to ask."""

    sees_answer = True

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor) -> Tensor | None:
        return None

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        return (gate_BQK > 0) & present_BQK
