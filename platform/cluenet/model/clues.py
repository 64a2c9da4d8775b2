"""The tensors that clue extractors, filters and reasoners exchange (see the shape legend in `cluenet.records`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class ClueStates:
    """What an extractor says: `words_BQKWD`, normalised states to be read through the LM head, one per word; or, where
    nothing is learned, the words themselves, `ids_BQKW`."""

    words_BQKWD: Tensor | None
    attention_BQKN: Tensor  # rows sum to 1, or are all zero where a slot says nothing of where
    presence_BQK: Tensor | None = None  # scores before the sigmoid; None: the words tell whether a slot says something
    ids_BQKW: Tensor | None = None
    logits_BQKWV: Tensor | None = None  # what the LM head reads from `words_BQKWD`, once it has
    taught_BQKWD: Tensor | None = None  # in training, states to be taught instead of `words_BQKWD` (teacher forcing)


def expected(logits_BQKWV: Tensor, embeddings_VD: Tensor) -> Tensor:
    """[B, Q, K, W, D] expected embeddings: more than the displayed words can say goes through."""
    return logits_BQKWV.softmax(-1) @ embeddings_VD


def straight_through(logits_BQKWV: Tensor, embeddings_VD: Tensor) -> Tensor:
    """[B, Q, K, W, D] embeddings of the most probable words; the gradient is that of the expected embedding.

    Straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): the reasoner sees exactly the displayed words.
    """
    hard = F.embedding(logits_BQKWV.argmax(-1), embeddings_VD)
    soft = logits_BQKWV.softmax(-1) @ embeddings_VD.detach()
    return hard + soft - soft.detach()


def confidence_of(logits_BQKWV: Tensor | None, ids_BQKW: Tensor) -> Tensor:
    """[B, Q, K] mean log-probability (nats) that slots give to these words; 0 without logits."""
    if logits_BQKWV is None:
        return torch.zeros(ids_BQKW.shape[:-1], device=ids_BQKW.device)
    said_BQKW = logits_BQKWV.gather(-1, ids_BQKW[..., None])[..., 0].float()
    return (said_BQKW - logits_BQKWV.float().logsumexp(-1)).mean(-1)


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 (with a gradient path) where nothing is."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


def group_mean(values_R: Tensor, group_R: Tensor, groups: int) -> Tensor:
    """[groups] mean of the values of each group; 0 for a group without any."""
    zeros = torch.zeros(groups, device=values_R.device)
    total, count = zeros.index_add(0, group_R, values_R), zeros.index_add(0, group_R, torch.ones_like(values_R))
    return total / count.clamp(min=1)


def span_moments(attention_BQKN: Tensor, block_span_BN2: Tensor) -> Tensor:
    """[B, Q, K, 2] start and end of the time each slot looks at, differentiable, in the unit of `block_span_BN2`.

    The interval whose uniform distribution has the mean and the variance of the attention's marginal over time (method of
    moments: mean +- sqrt(3 var)), a token being spread evenly over its block. Even attention over neighbouring blocks gives
    exactly their span.
    """
    start_BN, end_BN = block_span_BN2.unbind(-1)
    middle_BN, width_BN = (start_BN + end_BN) / 2, end_BN - start_BN
    mean_BQK = (attention_BQKN * middle_BN[:, None, None]).sum(-1)  # no matrix product: autocast would round it
    offset_BQKN = middle_BN[:, None, None] - mean_BQK[..., None]
    variance_BQK = (attention_BQKN * (offset_BQKN.square() + (width_BN.square() / 12)[:, None, None])).sum(-1)
    half_BQK = (3 * variance_BQK).clamp_min(1e-12).sqrt()
    return torch.stack([mean_BQK - half_BQK, mean_BQK + half_BQK], dim=-1)


def spans_of(attention_N: Tensor, blocks: int) -> tuple[int, int]:
    """First and last temporal block around the peak whose share of attention is at least half of the peak's."""
    share = attention_N.view(blocks, -1).sum(-1)
    peak = int(share.argmax())
    first = last = peak
    while first > 0 and share[first - 1] >= share[peak] / 2:
        first -= 1
    while last < blocks - 1 and share[last + 1] >= share[peak] / 2:
        last += 1
    return first, last


def box_of(attention_N: Tensor, blocks: int, rows: int, cols: int) -> tuple[int, float, float, float, float]:
    """(peak block, x1, y1, x2, y2): the smallest box around the cells with at least half of the peak cell's attention."""
    maps = attention_N.view(blocks, rows, cols)
    block = int(maps.flatten(1).sum(-1).argmax())
    ys, xs = torch.nonzero(maps[block] >= maps[block].max() / 2, as_tuple=True)
    return block, int(xs.min()) / cols, int(ys.min()) / rows, (int(xs.max()) + 1) / cols, (int(ys.max()) + 1) / rows
