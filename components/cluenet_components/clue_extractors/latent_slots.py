"""Learned clue slots that look at the video for a question, and say what they saw in words."""

from __future__ import annotations

import math
from typing import Literal

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

    The decoder layers below the clue layer condition the slots on video and question. Each block then looks at the video
    once; from the second on, the slots of a question first read each other, so that "the one ahead of it" can follow what
    "it" turned out to be. The last look (kept as `alpha`) says where; each word is read through the tied LM head (the
    logit lens, trained). `presence: learned` scores from the same state whether a slot has something to say.
    """

    version = 2

    class Config(ComponentConfig):
        slots: int = Field(3, ge=1, description="K, how many clues can be stated.")
        words: int = Field(4, ge=2, description="W, words per clue: when, then who, what, whom.")
        layer: float = Field(0.6, gt=0, le=1, description="Clue layer, as a fraction of the decoder's depth.")
        blocks: int = Field(2, ge=1, description="Looks at the video, one after the other.")
        matching: Literal["ordered", "hungarian"] = Field(
            "ordered",
            description="Which labelled clue teaches which slot: the k-th in time the k-th slot, or the assignment of least "
            "concept and attention loss.",
        )
        presence: Literal["words", "learned"] = Field(
            "words",
            description="What tells that a slot says something: at least half of its words do, or a score of its own, taught "
            "by the presence loss.",
        )
        bottleneck: Literal["text", "soft"] = Field(
            "text",
            description="What reaches the reasoner. text: the displayed words, straight-through; soft: the expected embedding "
            "of every word, which carries more than is displayed.",
        )
        heads: int = Field(4, ge=1, description="Attention heads of a block; must divide the backbone's width.")

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        nn.Module.__init__(self)
        ClueExtractor.__init__(self, config)
        if width % config.heads:
            message = f"{config.heads} does not divide the backbone's width, {width}"
            raise RecipeError("model", [Problem("model.clue_extractor.heads", message)])
        self.slots, self.words, self.layer = config.slots, config.words, max(1, round(config.layer * layers))
        self.queries_KD = nn.Parameter(torch.randn(config.slots, width) * 0.05)
        self.blocks = nn.ModuleList(SlotBlock(width, config.heads, first=i == 0) for i in range(config.blocks))
        self.word_norm = nn.LayerNorm(width)
        self.to_words = nn.Linear(width, config.words * width)
        self.matching, self.bottleneck = config.matching, config.bottleneck
        self.presence = nn.Linear(width, 1) if config.presence == "learned" else None

    @classmethod
    def taught_by(cls, config: ComponentConfig) -> frozenset[str]:
        losses = super().taught_by(config)
        return losses | {"presence"} if config.presence == "learned" else losses

    def query_embeddings(self) -> Tensor:
        return self.queries_KD

    def extract(self, query_BQKD: Tensor, visual_BND: Tensor, visual_mask_BN: Tensor) -> ClueStates:
        state_BQKD, attention_BQKN = query_BQKD, None
        for block in self.blocks:
            state_BQKD, attention_BQKN = block(state_BQKD, visual_BND, visual_mask_BN)
        said_BQKD = self.word_norm(state_BQKD)
        words = self.to_words(said_BQKD).unflatten(-1, (self.words, -1))
        presence_BQK = None if self.presence is None else self.presence(said_BQKD)[..., 0]
        return ClueStates(words, attention_BQKN, presence_BQK)


class SlotBlock(nn.Module):
    """One block: the slots of a question read each other (not in the first), then the video, then think."""

    def __init__(self, width: int, heads: int, *, first: bool):
        super().__init__()
        self.heads = heads
        self.slot_norm = None if first else nn.LayerNorm(width)
        self.slot_attention = None if first else nn.MultiheadAttention(width, heads, batch_first=True)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.query_norm, self.visual_norm = (nn.LayerNorm(width) for _ in range(2))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, state_BQKD: Tensor, visual_BND: Tensor, visual_mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """-> new states [B, Q, K, D], attention over the video [B, Q, K, N] (mean over heads; rows sum to 1)"""
        state_BQKD = self._read_each_other(state_BQKD)
        read, attention = self._read_video(state_BQKD, visual_BND, visual_mask_BN)
        state_BQKD = state_BQKD + self.output(read)
        return state_BQKD + self.mlp(state_BQKD), attention

    def _read_each_other(self, state_BQKD: Tensor) -> Tensor:
        if self.slot_attention is None:
            return state_BQKD
        slots = self.slot_norm(state_BQKD).flatten(0, 1)
        return state_BQKD + self.slot_attention(slots, slots, slots, need_weights=False)[0].view_as(state_BQKD)

    def _read_video(self, state_BQKD: Tensor, visual_BND: Tensor, visual_mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        b, q, k, width = state_BQKD.shape
        split = lambda x: x.view(b, -1, self.heads, width // self.heads).transpose(1, 2)  # noqa: E731
        visual = self.visual_norm(visual_BND)
        queries = split(self.query(self.query_norm(state_BQKD)).flatten(1, 2))
        scores = queries @ split(self.key(visual)).transpose(-1, -2) / math.sqrt(width // self.heads)
        weights = scores.masked_fill(~visual_mask_BN[:, None, None], float("-inf")).softmax(-1)
        read = (weights @ split(self.value(visual))).transpose(1, 2).reshape(b, q, k, width)
        return read, weights.mean(1).view(b, q, k, -1)
