"""No clues at all."""

from __future__ import annotations

from cluenet.contracts import ClueExtractor
from cluenet.registry import ComponentConfig, register


@register.clue_extractor("none")
class NoClues(ClueExtractor):
    """States nothing: for the answer-only baseline and for zero-shot evaluation."""

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        super().__init__(config)
        self.slots, self.words, self.layer = 0, 0, None
