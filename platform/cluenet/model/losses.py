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


def gate_loss(logits_BQ: Tensor, useful_BQ: Tensor, mask_BQ: Tensor) -> Tensor:
    """Binary cross-entropy of a clue's gate against whether leaving it out hurt the right answer."""
    values = F.binary_cross_entropy_with_logits(logits_BQ.float(), useful_BQ.float(), reduction="none")
    return sequence_mean(values, mask_BQ)


def option_logprobs(scores_BQA: Tensor, num_options_BQ: Tensor) -> Tensor:
    """Scores -> log-probabilities normalised over each question's options; -inf on the missing ones."""
    columns = torch.arange(scores_BQA.shape[-1], device=scores_BQA.device)
    missing = columns >= num_options_BQ[..., None].clamp(min=1)
    return scores_BQA.float().masked_fill(missing, float("-inf")).log_softmax(-1)
