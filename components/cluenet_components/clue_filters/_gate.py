"""The learned gate that several filters share: usefulness of a clue from its words, the question and the other clues."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from cluenet.contracts import ClueFilter
from cluenet.registry import ComponentConfig


class Gate(nn.Module):
    """pi_i = sigmoid(MLP[clue_i; question stem; mean of the other clues; confidence_i]), without options or answer.

    A side head: its inputs are detached, so training it does not move the reasoner (blended into the reasoner's forward
    pass, an early gate closed and answers fell to chance; see docs/log.md).
    """

    def __init__(self, width: int, words: int, *, confidence: bool):
        super().__init__()
        self.confidence = confidence
        self.mlp = nn.Sequential(nn.Linear((2 * words + 1) * width + confidence, width), nn.GELU(), nn.Linear(width, 1))
        nn.init.constant_(self.mlp[2].bias, 2.0)  # open until evidence says otherwise

    def forward(self, clues_BQKWD: Tensor, stem_BQD: Tensor, confidence_BQK: Tensor) -> Tensor:
        """-> logits [B, Q, K]"""
        clue = F.layer_norm(clues_BQKWD, clues_BQKWD.shape[-1:]).flatten(-2)
        count = clue.shape[2]
        others = (clue.sum(2, keepdim=True) - clue) / max(1, count - 1)
        stem = F.layer_norm(stem_BQD, stem_BQD.shape[-1:])[:, :, None].expand(-1, -1, count, -1)
        sure = [confidence_BQK[..., None].to(clue.dtype)] if self.confidence else []
        return self.mlp(torch.cat([clue, stem, others, *sure], dim=-1).detach())[..., 0]


class GateConfig(ComponentConfig):
    gate: Literal["hard", "soft"] = Field(
        "hard",
        description="How a kept clue is read. hard: as it stands; soft: its word embeddings mix with those of an empty slot, "
        "the gate being its share.",
    )
    confidence: bool = Field(
        True,
        description="The gate also sees how sure the extractor is of a clue: the mean log-probability of its words.",
    )


class GatedFilter(nn.Module, ClueFilter):
    """Base of the filters that keep clues by a learned gate; they differ in `keep` alone."""

    learned = True

    def __init__(self, config: GateConfig, *, width: int, words: int):
        nn.Module.__init__(self)
        ClueFilter.__init__(self, config)
        self.gate = Gate(width, words, confidence=config.confidence)

    def gate_logits(self, clues_BQKWD: Tensor, stem_BQD: Tensor, confidence_BQK: Tensor) -> Tensor:
        return self.gate(clues_BQKWD, stem_BQD, confidence_BQK)

    def shares(self, gate_BQK: Tensor, keep_BQK: Tensor) -> Tensor:
        return keep_BQK * gate_BQK if self.config.gate == "soft" else keep_BQK.float()


def best(gate_BQK: Tensor, allowed_BQK: Tensor, count: int) -> Tensor:
    """Bool [B, Q, K]: the `count` allowed clues with the highest gates, the earlier slot first among equals."""
    scores = gate_BQK.masked_fill(~allowed_BQK, -1.0)
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return (rank < count) & allowed_BQK
