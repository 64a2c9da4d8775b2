"""Clues without training: what the backbone's visual tokens already say."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from cluenet.contracts import ClueExtractor
from cluenet.model.clues import ClueStates
from cluenet.model.sight import Sight
from cluenet.registry import ComponentConfig, register
from cluenet_components.clue_extractors._words import STOP_WORDS, clues_at


@register.clue_extractor("logit_lens")
class LogitLens(ClueExtractor):
    """States the words that visual tokens name most surely, read through the LM head at the clue layer; no training.

    The logit lens, softmax(W_U Norm(h_n)), on the visual tokens (Neo et al., arXiv 2410.07149). The K clues are the K
    content words of the highest probability anywhere, each with the next words of its surest token; a clue's region are
    the tokens whose first content word it is. The video stands before the question, so that the clues of a clip are the
    same for all of its questions.
    """

    training_free = True

    class Config(ComponentConfig):
        slots: int = Field(3, ge=1, description="K, how many clues are stated at most.")
        words: int = Field(4, ge=2, description="W, words per clue: when, then the W - 1 surest words of its token.")
        layer: float = Field(0.8, gt=0, le=1, description="Clue layer, as a fraction of the decoder's depth.")

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        super().__init__(config)
        self.slots, self.words, self.layer = config.slots, config.words, max(1, round(config.layer * layers))

    @torch.no_grad()
    def read(self, sight: Sight) -> ClueStates:
        sure_BNC, words_BNC = sight.top_words(self.words - 1, excluded=STOP_WORDS)
        found = [surest(sure_NC[:, 0], words_NC[:, 0], self.slots) for sure_NC, words_NC in zip(sure_BNC, words_BNC)]
        tokens_BQK, attention_BQKN = (
            torch.stack(part)[:, None].expand(-1, sight.num_questions, *part[0].shape) for part in zip(*found)
        )
        return clues_at(sight, tokens_BQK, attention_BQKN, words_BNC)


def surest(sure_N: Tensor, words_N: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """(the surest token [K] of each of the surest words, -1 where there are fewer; where that word stands [K, N])."""
    tokens_K = torch.full((slots,), -1, device=sure_N.device)
    regions_KN = sure_N.new_zeros(slots, len(sure_N))
    left_N = sure_N.clone()
    for k in range(slots):
        token = left_N.argmax()
        if left_N[token] <= 0:
            break
        here_N = sure_N * (words_N == words_N[token])
        tokens_K[k], regions_KN[k] = token, here_N / here_N.sum()
        left_N[words_N == words_N[token]] = 0
    return tokens_K, regions_KN
