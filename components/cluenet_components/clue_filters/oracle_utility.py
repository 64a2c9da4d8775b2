"""The clues that help, by hindsight."""

from __future__ import annotations

from torch import Tensor

from cluenet.contracts import ClueFilter
from cluenet.registry import register


@register.clue_filter("oracle_utility")
class OracleUtilityFilter(ClueFilter):
    """Keeps the clues of positive exact utility: an upper bound for evaluation that sees the right answer.

    Where the right answer is not known, it raises CluenetError: such a model cannot be asked.
    """

    sees_answer = True

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor, confidence_BQK: Tensor) -> Tensor | None:
        return None

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        return (gate_BQK > 0) & present_BQK
