"""The tensors that clue extractors, filters and reasoners exchange (see the shape legend in `cluenet.records`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class ClueStates:
    """What an extractor says. `words_BQKWD` are normalised states to be read through the LM head, one per word."""

    words_BQKWD: Tensor
    attention_BQKN: Tensor  # rows sum to 1


def straight_through(logits_BQKWV: Tensor, embeddings_VD: Tensor) -> Tensor:
    """[B, Q, K, W, D] embeddings of the most probable words; the gradient is that of the expected embedding.

    Straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): the reasoner sees exactly the displayed words.
    """
    hard = F.embedding(logits_BQKWV.argmax(-1), embeddings_VD)
    soft = logits_BQKWV.softmax(-1) @ embeddings_VD.detach()
    return hard + soft - soft.detach()


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 (with a gradient path) where nothing is."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum().clamp(min=1)


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
