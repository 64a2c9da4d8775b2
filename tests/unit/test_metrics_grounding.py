"""The pointing game by hand and against plain Python."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cluenet.metrics.grounding import pointing, target_cells
from cluenet.records import Box

SHAPE, SECONDS = (2, 2, 4), (0.5, 1.5)  # 2 blocks of 2 rows x 4 columns


def _attention(block: int, row: int, col: int) -> np.ndarray:
    maps = np.full(SHAPE, 0.01)
    maps[block, row, col] = 1.0
    return maps.flatten()


QUARTER = Box(1.4, 0.0, 0.0, 0.5, 0.5)  # top left two cells of block 1


def test_peak_inside_the_box_at_its_time() -> None:
    assert pointing(_attention(1, 0, 0), SHAPE, [QUARTER], SECONDS) == (True, 2 / 16)
    assert pointing(_attention(1, 0, 1), SHAPE, [QUARTER], SECONDS)[0]


@pytest.mark.parametrize("place", [(1, 0, 2), (1, 1, 0), (0, 0, 0)])
def test_peak_beside_the_box_or_at_another_time(place: tuple[int, int, int]) -> None:
    assert not pointing(_attention(*place), SHAPE, [QUARTER], SECONDS)[0]


def test_a_box_belongs_to_the_nearest_block_the_earlier_of_two() -> None:
    halfway = Box(1.0, 0.0, 0.0, 0.5, 0.5)
    assert target_cells(SHAPE, [halfway], SECONDS)[0].any()
    assert not target_cells(SHAPE, [halfway], SECONDS)[1].any()
    after_the_end = Box(99.0, 0.0, 0.0, 0.5, 0.5)
    assert target_cells(SHAPE, [after_the_end], SECONDS)[1].any()


def test_a_box_smaller_than_a_cell_is_its_cell() -> None:
    tiny = Box(0.5, 0.26, 0.01, 0.28, 0.02)  # contains no cell's centre
    assert np.argwhere(target_cells(SHAPE, [tiny], SECONDS)).tolist() == [[0, 0, 1]]
    corner = Box(0.5, 0.99, 0.99, 1.0, 1.0)
    assert np.argwhere(target_cells(SHAPE, [corner], SECONDS)).tolist() == [[0, 1, 3]]


def test_several_boxes_add_up() -> None:
    boxes = [QUARTER, Box(0.4, 0.5, 0.5, 1.0, 1.0)]
    assert pointing(_attention(0, 1, 3), SHAPE, boxes, SECONDS) == (True, 4 / 16)


def test_against_plain_python_on_random_boxes() -> None:
    rng = random.Random(0)
    for _ in range(200):
        shape = (rng.randint(1, 4), rng.randint(1, 5), rng.randint(1, 5))
        seconds = sorted(rng.random() * 10 for _ in range(shape[0]))
        boxes = []
        for _ in range(rng.randint(1, 3)):
            (x1, x2), (y1, y2) = (sorted(rng.sample(range(101), 2)) for _ in range(2))
            boxes.append(Box(rng.random() * 10, x1 / 100, y1 / 100, x2 / 100, y2 / 100))
        expected = {cell for box in boxes for cell in _cells(box, shape, seconds)}
        assert {tuple(cell) for cell in np.argwhere(target_cells(shape, boxes, seconds)).tolist()} == expected


def _cells(box: Box, shape: tuple[int, int, int], seconds: list[float]):
    blocks, rows, cols = shape
    block = min(range(blocks), key=lambda b: (abs(seconds[b] - box.seconds), b))
    for row in range(rows):
        for col in range(cols):
            y, x = (row + 0.5) / rows, (col + 0.5) / cols
            centre_in_box = box.x1 <= x <= box.x2 and box.y1 <= y <= box.y2
            middle_y, middle_x = (box.y1 + box.y2) / 2 * rows, (box.x1 + box.x2) / 2 * cols
            if centre_in_box or (int(middle_y) == row and int(middle_x) == col):
                yield block, row, col


def test_uniform_attention_hits_as_often_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    hits = [pointing(rng.random(16), SHAPE, [QUARTER], SECONDS)[0] for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(2 / 16, abs=0.02)


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"attention over 15 tokens, but \(2, 2, 4\) are 16"):
        pointing(np.ones(15), SHAPE, [QUARTER], SECONDS)
    with pytest.raises(ValueError, match="2 blocks but 1 block times"):
        pointing(np.ones(16), SHAPE, [QUARTER], [0.5])
    with pytest.raises(ValueError, match="needs a box"):
        pointing(np.ones(16), SHAPE, [], SECONDS)
