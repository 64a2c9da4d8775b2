"""Rotary positions of a prompt with one video."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor

from cluenet.model.grid import Grid


def counted(length: int) -> Tensor:
    """[3, P] the number of each token on all three axes: for families with one axis, which take the first."""
    return torch.arange(length).expand(3, -1)


def multimodal(is_visual: list[bool], grid: Grid, *, tokens_per_second: float) -> Tensor:
    """[3, P] positions on the axes time, height, width (mRoPE, Qwen2-VL, arXiv 2409.12191).

    A text token moves on all axes at once. The visual tokens of a block have the block's time, their row and their column,
    from where the text before them ended. Blocks that follow each other without text between them are
    `tokens_per_second` * `grid.block_seconds` apart, rounded down. The text goes on one behind the highest position of all
    axes, as in Qwen's own code (huggingface/transformers pull request 35569) and in Transformers 4.57; 5.23 leaves time out.
    """
    parts: list[Tensor] = []
    start = 0
    for visual, run in groupby(is_visual):
        count = len(list(run))
        part = _blocks(count, grid, tokens_per_second) if visual else counted(count)
        parts.append(part + start)
        start = int(parts[-1].max()) + 1
    return torch.cat(parts, dim=1)


def _blocks(count: int, grid: Grid, tokens_per_second: float) -> Tensor:
    """[3, count] positions of whole blocks, from 0."""
    times = (torch.arange(count // grid.per_block) * (tokens_per_second * grid.block_seconds)).long()
    axes = torch.meshgrid(times, torch.arange(grid.rows), torch.arange(grid.cols), indexing="ij")
    return torch.stack(axes).reshape(3, -1)
