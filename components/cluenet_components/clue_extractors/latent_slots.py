"""Learned clue slots that look at the video for a question, and say what they saw in words."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from cluenet.contracts import ClueExtractor
from cluenet.errors import Problem, RecipeError
from cluenet.model.clues import ClueStates
from cluenet.registry import ComponentConfig, register


@register.clue_extractor("latent_slots")
class LatentSlots(nn.Module, ClueExtractor):
    """K learned tokens after the question; their states at the clue layer attend over the video's, and name W words each.

    The decoder layers below the clue layer condition the slots on video and question; cross-attention (kept as `alpha`)
    says where; each word is read through the tied LM head (the logit lens, trained).
    """

    class Config(ComponentConfig):
        slots: int = Field(3, ge=1, description="K, how many clues can be stated.")
        words: int = Field(4, ge=2, description="W, words per clue: when, then who, what, whom.")
        layer: float = Field(0.6, gt=0, le=1, description="Clue layer, as a fraction of the decoder's depth.")
        heads: int = Field(4, ge=1, description="Cross-attention heads; must divide the backbone's width.")

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        nn.Module.__init__(self)
        ClueExtractor.__init__(self, config)
        if width % config.heads:
            message = f"{config.heads} does not divide the backbone's width, {width}"
            raise RecipeError("model", [Problem("model.clue_extractor.heads", message)])
        self.slots, self.words, self.layer = config.slots, config.words, max(1, round(config.layer * layers))
        self.queries_KD = nn.Parameter(torch.randn(config.slots, width) * 0.05)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.query_norm, self.visual_norm, self.word_norm = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.to_words = nn.Linear(width, config.words * width)

    def query_embeddings(self) -> Tensor:
        return self.queries_KD

    def extract(self, query_BQKD: Tensor, visual_BND: Tensor, visual_mask_BN: Tensor) -> ClueStates:
        b, q, k, width = query_BQKD.shape
        split = lambda x: x.view(b, -1, self.config.heads, width // self.config.heads).transpose(1, 2)  # noqa: E731
        visual = self.visual_norm(visual_BND)
        queries = split(self.query(self.query_norm(query_BQKD)).flatten(1, 2))
        scores = queries @ split(self.key(visual)).transpose(-1, -2) / math.sqrt(width // self.config.heads)
        weights = scores.masked_fill(~visual_mask_BN[:, None, None], float("-inf")).softmax(-1)
        read = (weights @ split(self.value(visual))).transpose(1, 2).reshape(b, q, k, width)
        state = query_BQKD + self.output(read)
        state = state + self.mlp(state)
        words = self.to_words(self.word_norm(state)).view(b, q, k, self.words, width)
        return ClueStates(words, weights.mean(1).view(b, q, k, -1))
