"""The visual tokens of one clip, as a grid over time and space."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Visual tokens of one clip: `blocks` temporal blocks of `rows` x `cols` tokens; N = blocks * rows * cols.

    A token that belongs to no frame, such as the newline that LLaVA-OneVision puts behind a video, is not counted.
    """

    blocks: int
    rows: int
    cols: int
    seconds: tuple[float, ...]  # middle of every block, from the start of the clip
    block_seconds: float = 0.0  # from the start of one block to that of the next, the mean over the clip

    @property
    def per_block(self) -> int:
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        return self.blocks * self.per_block

    @property
    def end_seconds(self) -> float:
        """Where the clip ends, going by its sampled frames; exact where a block is one frame."""
        return self.seconds[-1] + self.block_seconds
