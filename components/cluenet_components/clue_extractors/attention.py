"""Clues without training: where the backbone looks because of the question, and what it sees there."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cluenet.contracts import ClueExtractor
from cluenet.model.clues import ClueStates
from cluenet.model.sight import Sight
from cluenet.model.vlm import Grid
from cluenet.registry import ComponentConfig, register
from cluenet_components.clue_extractors._words import STOP_WORDS, clues_at


@register.clue_extractor("attention")
class AttentionClues(ClueExtractor):
    """States what stands where the question's last token looks, compared with a general prompt; no training.

    Relative attention A(question) / A(general prompt) over the visual tokens (Zhang et al., arXiv 2502.17422), mean over
    heads: what every prompt looks at cancels out. The K clues are its K highest peaks, each a region of one temporal block
    that no other clue takes from; their words are read there through the LM head at the clue layer (see `logit_lens`).
    """

    training_free = True

    class Config(ComponentConfig):
        slots: int = Field(3, ge=1, description="K, how many clues are stated at most.")
        words: int = Field(4, ge=2, description="W, words per clue: when, then the W - 1 surest words at its peak.")
        layer: float = Field(0.8, gt=0, le=1, description="Clue layer, as a fraction of the decoder's depth.")
        attention_layer: float = Field(
            0.5, gt=0, le=1, description="Layer whose attention is read, as a fraction of the depth; not above `layer`."
        )
        radius: int = Field(
            1, ge=0, description="Visual tokens around a peak, in rows and columns, that are its region."
        )
        prompt: str = Field(
            "Write a general description of the video.", min_length=1, description="What attention is compared with."
        )

        @model_validator(mode="after")
        def _attention_is_below_the_clue_layer(self) -> AttentionClues.Config:
            if self.attention_layer > self.layer:
                raise ValueError(
                    f"attention_layer {self.attention_layer} is above layer {self.layer}, where the extraction pass stops"
                )
            return self

    def __init__(self, config: ComponentConfig, *, width: int, layers: int):
        super().__init__(config)
        self.slots, self.words, self.layer = config.slots, config.words, max(1, round(config.layer * layers))
        self.attention_layer = max(1, round(config.attention_layer * layers))

    @torch.no_grad()
    def read(self, sight: Sight) -> ClueStates:
        general_BN = sight.attention_of(self.config.prompt, layer=self.attention_layer)
        relative_BQN = sight.attention_of_questions(layer=self.attention_layer) / general_BN[:, None].clamp_min(1e-9)
        relative_BQN = relative_BQN * sight.visual_mask_BN[:, None]
        found = [
            peaks(relative_N, grid, self.slots, self.config.radius)
            for relative_QN, grid in zip(relative_BQN, sight.grids)
            for relative_N in relative_QN
        ]
        tokens, regions = (torch.stack(part).unflatten(0, relative_BQN.shape[:2]) for part in zip(*found))
        _, words_BNC = sight.top_words(self.words - 1, excluded=STOP_WORDS)
        return clues_at(sight, tokens, regions, words_BNC)


def peaks(values_N: Tensor, grid: Grid, slots: int, radius: int) -> tuple[Tensor, Tensor]:
    """(tokens [K] of the highest peaks, -1 where nothing is left; their regions [K, N], rows of sum 1 or 0)."""
    tokens_K = torch.full((slots,), -1, device=values_N.device)
    regions_KN = values_N.new_zeros(slots, len(values_N))
    left = values_N[: grid.tokens].clone().view(grid.blocks, grid.rows, grid.cols)
    for k in range(slots):
        token = int(left.argmax())
        block, row, col = token // (grid.rows * grid.cols), token // grid.cols % grid.rows, token % grid.cols
        if left[block, row, col] <= 0:
            break
        near = (block, *(slice(max(0, at - radius), at + radius + 1) for at in (row, col)))
        region = torch.zeros_like(left)
        region[near] = left[near]
        tokens_K[k], regions_KN[k, : grid.tokens] = token, region.flatten() / region.sum()
        left[near] = 0
    return tokens_K, regions_KN
