"""Tensors of different sizes as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def stacked(tensors: Sequence[Tensor], dimension: int = 0) -> Tensor:
    """One after the other along `dimension`, every other dimension padded at its end (zeros, False) to the largest."""
    sizes = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors))]
    return torch.cat([_padded(tensor, sizes, dimension) for tensor in tensors], dim=dimension)


def _padded(tensor: Tensor, sizes: Sequence[int], dimension: int) -> Tensor:
    missing = [0 if i == dimension else size - have for i, (size, have) in enumerate(zip(sizes, tensor.shape))]
    if not any(missing):
        return tensor
    return F.pad(tensor, [width for amount in reversed(missing) for width in (0, amount)])
