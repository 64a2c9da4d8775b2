"""The loss terms of both stages. Every term is a masked mean: examples without the label drop out, and are counted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.clues import sequence_mean


def token_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy over the vocabulary: logits [..., V], targets and mask [...]."""
    values = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="none")
    return sequence_mean(values, mask.flatten())


def attention_loss(attention_BQKN: Tensor, target_BQKN: Tensor, mask_BQK: Tensor) -> Tensor:
    """Cross-entropy of attention against where the clue is seen; its gradient is that of KL(target || attention)."""
    values = -(target_BQKN * attention_BQKN.clamp_min(1e-9).log()).sum(-1)
    return sequence_mean(values, mask_BQK)


def gate_loss(logits_BQK: Tensor, utility_BQK: Tensor, mask_BQK: Tensor, *, delta: float, temperature: float) -> Tensor:
    """Binary cross-entropy of gates against soft targets sigmoid((utility - delta) / temperature)."""
    targets = ((utility_BQK - delta) / temperature).sigmoid().to(logits_BQK.dtype)
    return sequence_mean(F.binary_cross_entropy_with_logits(logits_BQK, targets, reduction="none"), mask_BQK)


def ranking_loss(gate_BQK: Tensor, utility_BQK: Tensor, mask_BQK: Tensor, *, margin: float, delta: float) -> Tensor:
    """Hinge max(0, margin - (gate_i - gate_j)), mean over the pairs of a question with utility_i - utility_j > delta."""
    ahead = gate_BQK[..., :, None] - gate_BQK[..., None, :]
    better = utility_BQK[..., :, None] - utility_BQK[..., None, :] > delta
    return sequence_mean((margin - ahead).clamp(min=0), better & mask_BQK[..., :, None] & mask_BQK[..., None, :])


def budget_loss(gate_BQK: Tensor, mask_BQK: Tensor, *, share: float) -> Tensor:
    """Squared excess of the mean gate over `share`. The mean is the batch's: one question may need all of its clues."""
    return (sequence_mean(gate_BQK, mask_BQK) - share).clamp(min=0).square()


def option_logprobs(scores_BQA: Tensor, num_options_BQ: Tensor) -> Tensor:
    """Scores -> log-probabilities normalised over each question's options; -inf on the missing ones."""
    columns = torch.arange(scores_BQA.shape[-1], device=scores_BQA.device)
    missing = columns >= num_options_BQ[..., None].clamp(min=1)
    return scores_BQA.float().masked_fill(missing, float("-inf")).log_softmax(-1)
