"""The time line of a clip's visual tokens."""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
from torch import Tensor

from cluenet.model.vlm import Grid
from cluenet.records import Clue


@lru_cache(maxsize=1024)
def block_edges(grid: Grid) -> tuple[float, ...]:
    """blocks + 1 borders in seconds: halfway between the middles, the outer ones as far out as the inner ones are in."""
    middles = grid.seconds
    if len(middles) == 1:
        return 0.0, 2 * middles[0]
    inner = [(a + b) / 2 for a, b in itertools.pairwise(middles)]
    return max(0.0, 2 * middles[0] - inner[0]), *inner, 2 * middles[-1] - inner[-1]


def block_spans(grid: Grid) -> Tensor:
    """[N, 2] start and end of every visual token's temporal block, in fractions of the clip."""
    edges = torch.tensor([_fraction(edge, grid) for edge in block_edges(grid)])
    per_block = torch.stack([edges[:-1], edges[1:]], dim=-1)
    return per_block.repeat_interleave(grid.rows * grid.cols, dim=0)


def clip_fractions(clue: Clue, grid: Grid) -> tuple[float, float] | None:
    """Start and end of a clue (on the clip's clock) in fractions of the clip; None without times."""
    if clue.start_seconds is None or clue.end_seconds is None:
        return None
    start, end = (min(1.0, max(0.0, _fraction(time, grid))) for time in (clue.start_seconds, clue.end_seconds))
    return start, end


def _fraction(seconds: float, grid: Grid) -> float:
    edges = block_edges(grid)
    length = edges[-1] - edges[0]
    return (seconds - edges[0]) / length if length > 0 else 0.0
