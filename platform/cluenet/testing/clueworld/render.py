"""Draws a scene: frames [steps x frames_per_step, side, side, 3], uint8 RGB."""

from __future__ import annotations

from functools import cache

import numpy as np

from cluenet.testing.clueworld.settings import COLOURS
from cluenet.testing.clueworld.world import Cell, Scene

BACKGROUND, GREY, RING = 34, 128, (255, 255, 255)


@cache
def _masks(cell: int) -> dict[str, np.ndarray]:
    """Which pixels of a cell each shape covers, and the ring of a lit one."""
    y, x = (np.mgrid[0:cell, 0:cell] + 0.5) * (16 / cell) - 0.5  # drawn on a 16-pixel cell, scaled
    dy, dx = np.abs(y - 7.5), np.abs(x - 7.5)
    reach = np.maximum(dy, dx)
    return {
        "circle": dy**2 + dx**2 <= 5.6**2,
        "square": reach <= 4.8,
        "triangle": (y >= 2) & (y <= 13) & (dx <= (y - 1.5) / 2),
        "cross": ((dy <= 1.7) | (dx <= 1.7)) & (reach <= 5.8),
        "ring": (reach > 6.2) & (reach <= 7.6),
    }


def render(scene: Scene) -> np.ndarray:
    """Deterministic, camera noise included."""
    frames = [
        _frame(scene, step, sub)
        for step in range(scene.settings.steps)
        for sub in range(scene.settings.frames_per_step)
    ]
    video = np.stack(frames)
    if not scene.settings.noise:
        return video
    noise = np.random.default_rng(scene.seed).normal(0, scene.settings.noise, video.shape)
    return np.clip(video + noise, 0, 255).astype(np.uint8)


def _paint(colour: str, contrast: float) -> np.ndarray:
    """The pure colour at contrast 1, mixed with grey below."""
    return (contrast * np.array(COLOURS[colour]) + (1 - contrast) * GREY).round().astype(np.uint8)


def _frame(scene: Scene, step: int, sub: int) -> np.ndarray:
    cell, side = scene.settings.cell, scene.settings.side
    canvas = np.full((side + 2 * cell, side + 2 * cell, 3), BACKGROUND, np.uint8)  # a margin for what comes and goes
    share = (sub + 1) / scene.settings.frames_per_step
    for i, (colour, shape) in enumerate(zip(scene.colours, scene.shapes)):
        place = _place(scene, step, i, share)
        if place is None:
            continue
        y, x = (round(value * cell) + cell for value in place)
        here = canvas[max(0, y) : y + cell, max(0, x) : x + cell]
        if here.shape[:2] != (cell, cell):
            continue
        here[_masks(cell)[shape]] = _paint(colour, scene.settings.contrast)
        already = step == 0 or scene.lit[step - 1][i]
        if scene.lit[step][i] and (already or share > 0.5):
            here[_masks(cell)["ring"]] = RING
    return canvas[cell:-cell, cell:-cell]


def _place(scene: Scene, step: int, i: int, share: float) -> tuple[float, float] | None:
    """(row, column) of an object, `share` of the way through a step; None out of view."""
    now, before = scene.cells[step][i], scene.cells[max(0, step - 1)][i]
    if now is None and before is None:
        return None
    start = before if before is not None else _outside(now, scene.settings.grid)
    end = now if now is not None else _outside(before, scene.settings.grid)
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _outside(cell: Cell | None, grid: int) -> Cell:
    """The cell just beyond the border from which something enters."""
    row, col = cell  # type: ignore[misc]
    if row == 0:
        return -1, col
    if row == grid - 1:
        return grid, col
    return (row, -1) if col == 0 else (row, grid)
