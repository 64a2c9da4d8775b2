"""A fixed number of clues, the ones the gate likes best."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from cluenet.contracts import ClueFilter
from cluenet.registry import ComponentConfig, register
from cluenet_components.clue_filters._gate import Gate, best


@register.clue_filter("top_k")
class TopKFilter(nn.Module, ClueFilter):
    """Keeps the k clues with the highest learned gates, however low those are."""

    learned = True

    class Config(ComponentConfig):
        k: int = Field(1, ge=1, description="How many clues are kept.")

    def __init__(self, config: ComponentConfig, *, width: int, words: int):
        nn.Module.__init__(self)
        ClueFilter.__init__(self, config)
        self.gate = Gate(width, words)

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor) -> Tensor:
        return self.gate(clues_BQKWD, stem_BQD)

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seed: int) -> Tensor:
        return best(gate_BQK, present_BQK, self.config.k)
