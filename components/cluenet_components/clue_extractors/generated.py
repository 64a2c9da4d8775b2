"""Clues that the language model writes itself, word by word."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from cluenet.contracts import ClueExtractor
from cluenet.model.clues import ClueStates
from cluenet.model.sight import Sight
from cluenet.registry import ComponentConfig, register


@register.clue_extractor("generated")
class GeneratedClues(nn.Module, ClueExtractor):
    """The language model writes K clues of W words after the question, video in view: `when`, who, what, whom, and so on.

    Taught like any text, by the cross-entropy of each word given the true words before it (the concept loss); at inference
    each word is the most probable one given the model's own words before it. It has no parameters of its own and no slot
    attention: a clue's time is the temporal block that its first word names, and it names no place. Writing takes K x W + 1
    passes of the decoder over the questions, where slots take one.
    """

    class Config(ComponentConfig):
        slots: int = Field(3, ge=1, description="K, how many clues can be stated.")
        words: int = Field(4, ge=2, description="W, words per clue: when, then who, what, whom.")

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        nn.Module.__init__(self)
        ClueExtractor.__init__(self, config)
        self.slots, self.words, self.layer = config.slots, config.words, layers

    @classmethod
    def taught_by(cls, config: ComponentConfig) -> frozenset[str]:
        return frozenset({"concept"})

    @property
    def queries(self) -> int:
        return self.slots * self.words

    def read(self, sight: Sight) -> ClueStates:
        taught = None if sight.teacher_BQKW is None else self._states(sight, sight.teacher_BQKW)
        if not sight.reads_own:
            nowhere_BQKN = sight.visual_mask_BN[:, None, None].expand(-1, sight.num_questions, self.slots, -1) * 0.0
            return ClueStates(None, nowhere_BQKN, taught_BQKWD=taught)
        ids_BQKW = sight.written().unflatten(-1, (self.slots, self.words))
        return ClueStates(self._states(sight, ids_BQKW), _looks_at(sight, ids_BQKW), taught_BQKWD=taught)

    def _states(self, sight: Sight, ids_BQKW: Tensor) -> Tensor:
        return sight.continued(ids_BQKW.flatten(2)).unflatten(2, (self.slots, self.words))


def _looks_at(sight: Sight, ids_BQKW: Tensor) -> Tensor:
    """[B, Q, K, N] all visual tokens of the temporal block that a clue's first word names, evenly; 0 where it names none."""
    named_BQK11 = ids_BQKW[..., :1]
    block_BQKN = (sight.when_BN[:, None, None] == named_BQK11) & sight.visual_mask_BN[:, None, None]
    block_BQKN = (block_BQKN & (named_BQK11 != sight.vocabulary.absent)).float()
    return block_BQKN / block_BQKN.sum(-1, keepdim=True).clamp_min(1)
