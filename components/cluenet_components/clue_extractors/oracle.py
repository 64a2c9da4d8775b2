"""The upper bound: clues from the labels."""

from __future__ import annotations

from pydantic import Field

from cluenet.contracts import ClueExtractor
from cluenet.registry import ComponentConfig, register


@register.clue_extractor("oracle")
class OracleClues(ClueExtractor):
    """States the ground-truth clues: no extraction is learned. For the upper-bound row only."""

    class Config(ComponentConfig):
        slots: int = Field(3, ge=1, description="K, how many clues can be stated; later ones are left out.")
        words: int = Field(4, ge=2, description="W, words per clue: when, then who, what, whom.")

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        super().__init__(config)
        self.slots, self.words, self.layer = config.slots, config.words, None
