"""Which labelled clue teaches which slot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from cluenet.model.batch import Labels
    from cluenet.model.clues import ClueStates

Matching = Literal["ordered", "hungarian"]


def clue_order(logits_BQKWV: Tensor, states: ClueStates, labels: Labels, *, concept: float, attention: float) -> Tensor:
    """[B, Q, K] for every slot the number of the clue that teaches it, at the least total cost of a question.

    The Hungarian assignment of set prediction (DETR, arXiv 2005.12872): every slot gets one clue, unused places count as
    clues of `none`. No gradient. concept, attention: weights of the two parts of a pair's cost.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and not always wanted

    with torch.no_grad():
        cost_BQKG = concept * concept_cost(logits_BQKWV, labels.words_BQKW)
        located = labels.located_BQK[:, :, None].to(cost_BQKG.dtype)
        cost_BQKG = cost_BQKG + attention * located * attention_cost(states.attention_BQKN, labels.attention_BQKN)
    b, q, k, _ = cost_BQKG.shape
    orders = [linear_sum_assignment(cost)[1] for cost in cost_BQKG.flatten(0, 1).cpu().numpy()]
    return torch.from_numpy(np.stack(orders)).to(cost_BQKG.device).view(b, q, k)


def concept_cost(logits_BQKWV: Tensor, words_BQGW: Tensor) -> Tensor:
    """[B, Q, K, G] cross-entropy of slot k's words against clue g's, mean over words."""
    logprob = logits_BQKWV.float().log_softmax(-1)
    index_BQKWG = words_BQGW.transpose(-1, -2)[:, :, None].expand(*logprob.shape[:-1], -1)
    return -logprob.gather(-1, index_BQKWG).mean(-2)


def attention_cost(attention_BQKN: Tensor, target_BQGN: Tensor) -> Tensor:
    """[B, Q, K, G] cross-entropy of slot k's attention against where clue g is seen (`losses.attention_loss`)."""
    return -attention_BQKN.float().clamp_min(1e-9).log() @ target_BQGN.float().transpose(-1, -2)


def reordered(labels: Labels, order_BQK: Tensor) -> Labels:
    """The labels with each question's clues in that order."""

    def pick(values: Tensor) -> Tensor:
        index = order_BQK.view(*order_BQK.shape, *[1] * (values.ndim - 3)).expand_as(values)
        return values.gather(2, index)

    names = ("words_BQKW", "attention_BQKN", "located_BQK", "span_BQK2", "timed_BQK")
    return replace(labels, **{name: pick(getattr(labels, name)) for name in names})
