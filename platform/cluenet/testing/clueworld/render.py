"""Draws a scene, and says for every patch what it shows."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from cluenet.testing.clueworld.settings import COLOURS, SHAPES
from cluenet.testing.clueworld.world import Cell, Scene

BACKGROUND, GREY, RING = 34, 128, 255
DRAWN_AT = 16
"""Shapes are described on a cell of 16 x 16 pixels and scaled to others."""


def render_scene(scene: Scene) -> npt.NDArray[np.uint8]:
    """frames_THWC, uint8 RGB [steps x frames_per_step, side, side, 3]; deterministic, camera noise included."""
    settings = scene.settings
    frames_THWC = np.stack(
        [
            _frame(scene, step, (number + 1) / settings.frames_per_step)
            for step in range(settings.steps)
            for number in range(settings.frames_per_step)
        ]
    )
    if settings.noise:
        noise = np.random.default_rng(scene.seed).normal(0, settings.noise, frames_THWC.shape)
        return np.clip(np.rint(frames_THWC + noise), 0, 255).astype(np.uint8)
    return frames_THWC


def patch_labels(scene: Scene, blocks: int, grid: int) -> npt.NDArray[np.int64]:
    """What every visual token shows: int64 [blocks, grid, grid, 3] of colour, shape and light; 0 where nothing is.

    Colours count from 1 in the order of `COLOURS`, shapes in that of `SHAPES`; light is 1 for dark and 2 for lit. A block
    is a stretch of the video of equal length, labelled with the end of the step that its middle lies in; a token is labelled
    with the cell that its centre lies in. With `scene_of` this labels a prepared clip from the id of an example.
    Raises ValueError for less than one block or token.
    """
    if blocks < 1 or grid < 1:
        raise ValueError(
            f"patch_labels needs at least one block and one token per side, got blocks={blocks}, grid={grid}"
        )
    settings, colours = scene.settings, list(COLOURS)
    cells = np.zeros((settings.steps, settings.grid, settings.grid, 3), np.int64)
    for step in range(settings.steps):
        for i, cell in enumerate(scene.cells[step]):
            if cell is not None:
                light = 1 + scene.lit[step][i]
                cells[step][cell] = 1 + colours.index(scene.colours[i]), 1 + SHAPES.index(scene.shapes[i]), light
    steps, lines = _centres(blocks, settings.steps), _centres(grid, settings.grid)
    return cells[np.ix_(steps, lines, lines)]


def _centres(parts: int, whole: int) -> npt.NDArray[np.int64]:
    """Which of `whole` units the middle of each of `parts` equal parts lies in."""
    return (2 * np.arange(parts) + 1) * whole // (2 * parts)


def _frame(scene: Scene, step: int, share: float) -> npt.NDArray[np.uint8]:
    """[side, side, 3] when `share` (above 0, at most 1) of a step has passed. Lights go on in its second half."""
    cell, side = scene.settings.cell, scene.settings.side
    canvas_HWC = np.full((side + 2 * cell, side + 2 * cell, 3), BACKGROUND, np.uint8)  # a margin for who comes and goes
    for i, shape in enumerate(scene.shapes):
        place = _place(scene, step, i, share)
        if place is None:
            continue
        y, x = (round(line * cell) + cell for line in place)
        patch_HWC = canvas_HWC[y : y + cell, x : x + cell]
        patch_HWC[_masks(cell)[shape]] = _rgb(scene.colours[i], scene.settings.contrast)
        was_lit = scene.lit[max(0, step - 1)][i]
        if was_lit or (scene.lit[step][i] and share > 0.5):
            patch_HWC[_masks(cell)["ring"]] = RING
    return canvas_HWC[cell:-cell, cell:-cell]


def _place(scene: Scene, step: int, i: int, share: float) -> tuple[float, float] | None:
    """(row, column) of an object on its way through a step; None where it is out of view."""
    now, before = scene.cells[step][i], scene.cells[max(0, step - 1)][i]
    start = before or (now and _outside(now, scene.settings.grid))
    end = now or (before and _outside(before, scene.settings.grid))
    if start is None or end is None:
        return None
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _outside(cell: Cell, grid: int) -> Cell:
    """The place just beyond the border that something enters from or leaves to."""
    row, col = cell
    if row in (0, grid - 1):
        return (-1 if row == 0 else grid), col
    return row, (-1 if col == 0 else grid)


@cache
def _masks(cell: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Which pixels of a cell [cell, cell] each shape covers, and the ring of a lit one."""
    y, x = (np.mgrid[0:cell, 0:cell] + 0.5) * (DRAWN_AT / cell) - 0.5
    middle = (DRAWN_AT - 1) / 2
    dy, dx = np.abs(y - middle), np.abs(x - middle)
    reach = np.maximum(dy, dx)
    return {
        "circle": dy**2 + dx**2 <= 5.6**2,
        "square": reach <= 4.8,
        "triangle": (y >= 2) & (y <= 13) & (dx <= (y - 1.5) / 2),
        "cross": (np.minimum(dy, dx) <= 1.7) & (reach <= 5.8),
        "ring": (reach > 6.2) & (reach <= 7.6),
    }


@cache
def _rgb(colour: str, contrast: float) -> tuple[int, ...]:
    return tuple(round(GREY + (channel - GREY) * contrast) for channel in COLOURS[colour])
