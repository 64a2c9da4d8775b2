"""Does attention look at the right place? The pointing game (Zhang et al. 2016, arXiv 1608.00507) in space and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluenet.records import Box


def target_cells(shape: tuple[int, int, int], boxes: Sequence[Box], block_seconds: Sequence[float]) -> np.ndarray:
    """Bool [blocks, rows, cols]: visual tokens that point at a box.

    `shape`: (blocks, rows, cols) of the visual tokens; `block_seconds`: middle of each block, same clock as the boxes.
    A box belongs to the block nearest to its time, the earlier of two equally near, as in the attention's training target.
    A cell points at it when its centre is in the box or the box's centre is in the cell (a box smaller than a cell).
    """
    blocks, rows, cols = shape
    times = np.asarray(block_seconds, dtype=float)
    if times.shape != (blocks,):
        raise ValueError(f"{blocks} blocks but {times.shape[0]} block times")
    cells = np.zeros(shape, dtype=bool)
    for box in boxes:
        block = int(np.abs(times - box.seconds).argmin())
        cells[block] |= _covered(box, rows, cols)
    return cells


def _covered(box: Box, rows: int, cols: int) -> np.ndarray:
    cells_RC: np.ndarray = _inside(box.y1, box.y2, rows)[:, None] & _inside(box.x1, box.x2, cols)[None]
    row, col = int((box.y1 + box.y2) / 2 * rows), int((box.x1 + box.x2) / 2 * cols)
    cells_RC[min(row, rows - 1), min(col, cols - 1)] = True
    return cells_RC


def _inside(low: float, high: float, count: int) -> np.ndarray:
    """Bool [count]: which of `count` equal cells of 0..1 have their centre in low..high."""
    centres = (np.arange(count) + 0.5) / count
    inside: np.ndarray = (centres >= low) & (centres <= high)
    return inside


def pointing(
    attention_N: Sequence[float], shape: tuple[int, int, int], boxes: Sequence[Box], block_seconds: Sequence[float]
) -> tuple[bool, float]:
    """Whether the peak of attention points at one of the boxes, and how often a random token would.

    Raises ValueError when attention and shape disagree, or there is no box to point at.
    """
    attention = np.asarray(attention_N, dtype=float)
    if attention.shape != (int(np.prod(shape)),):
        raise ValueError(f"attention over {attention.size} tokens, but {shape} are {int(np.prod(shape))}")
    if not boxes:
        raise ValueError("the pointing game needs a box to point at")
    cells = target_cells(shape, boxes, block_seconds)
    return bool(cells.flat[int(attention.argmax())]), float(cells.mean())
