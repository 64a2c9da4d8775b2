"""ClueWorld's pictures: what the scene says is what the pixels show, at every size and difficulty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cluenet.testing.clueworld import (
    COLOURS,
    SHAPES,
    Scene,
    WorldSettings,
    patch_labels,
    render_scene,
    scene_of,
    split_scene,
)

DEFAULT = WorldSettings()
BACKGROUND = [34, 34, 34]
RING = 16**2 - 12**2
"""Pixels of the white outline of a lit cell: two wide."""


def centre(frame_HWC: npt.NDArray[np.uint8], cell: tuple[int, int], size: int) -> list[int]:
    row, col = cell
    return frame_HWC[row * size + size // 2, col * size + size // 2].tolist()  # type: ignore[no-any-return]


def find(verb: str, split_from: int = 0) -> tuple[Scene, int]:
    """A scene and the step in which such an event happens."""
    for index in range(split_from, 1000):
        scene = split_scene(DEFAULT, "train", index)
        for k, event in enumerate(scene.events):
            if event.verb == verb:
                return scene, k + 1
    raise AssertionError(f"no scene with {verb}")


@pytest.mark.parametrize(("cell", "grid"), [(16, 4), (32, 4), (64, 4), (16, 6)])
def test_every_object_rests_in_its_cell_in_its_colour_at_the_end_of_each_step(cell: int, grid: int) -> None:
    for index in range(5):
        scene = split_scene(WorldSettings(cell=cell, grid=grid), "train", index)
        frames_THWC = render_scene(scene)
        assert frames_THWC.shape == (32, cell * grid, cell * grid, 3)
        assert frames_THWC.dtype == np.uint8
        for step, cells in enumerate(scene.cells):
            last = frames_THWC[4 * step + 3]
            shown = {place: scene.colours[i] for i, place in enumerate(cells) if place is not None}
            for place in np.ndindex(grid, grid):
                expected = list(COLOURS[shown[place]]) if place in shown else BACKGROUND
                assert centre(last, place, cell) == expected


def test_the_four_shapes_differ_and_larger_cells_show_the_same_shapes() -> None:
    drawn: dict[str, npt.NDArray[np.bool_]] = {}
    for index in range(40):
        scene = split_scene(DEFAULT, "train", index)
        small, large = render_scene(scene)[3], render_scene(split_scene(WorldSettings(cell=64), "train", index))[3]
        for i, place in enumerate(scene.cells[0]):
            if place is not None:
                row, col = place[0] * 16, place[1] * 16
                mask = (small[row : row + 16, col : col + 16] != 34).any(-1)
                shape = scene.shapes[i]
                assert np.array_equal(drawn.setdefault(shape, mask), mask), (
                    "a shape looks the same in every colour and cell"
                )
                block = (large[row * 4 : row * 4 + 64, col * 4 : col * 4 + 64] != 34).any(-1)
                assert np.mean(block[2::4, 2::4] != mask) < 0.05
    assert set(drawn) == set(SHAPES)
    assert len({mask.tobytes() for mask in drawn.values()}) == len(SHAPES)


def test_a_light_is_a_white_ring_that_comes_in_the_middle_of_its_step_and_stays() -> None:
    scene, step = find("lights")
    white = [int((frame == 255).all(-1).sum()) for frame in render_scene(scene)]
    before, (first, second, third, fourth) = white[4 * step - 1], white[4 * step : 4 * step + 4]
    assert first == second == before
    assert third == fourth == before + RING
    assert white[-1] == RING * sum(scene.lit[-1][i] for i in range(5) if scene.cells[-1][i] is not None)


def test_who_enters_comes_over_the_border_and_who_leaves_goes_over_it() -> None:
    for verb, numbers in (("enters", (0, 1, 2, 3)), ("leaves", (3, 2, 1, 0))):
        scene, step = find(verb)
        colour = COLOURS[scene.colours[scene.events[step - 1].who]]
        frames_THWC = render_scene(scene)
        visible = [int((frames_THWC[4 * step + number] == colour).all(-1).sum()) for number in numbers]
        assert visible == sorted(visible)
        assert visible[0] < visible[-1]
        outside = 4 * step - 1 if verb == "enters" else 4 * step + 3
        assert not (frames_THWC[outside] == colour).all(-1).any()


def test_noise_has_the_strength_it_says_and_is_the_same_every_time() -> None:
    plain, noisy = (render_scene(split_scene(WorldSettings(noise=noise), "train", 0)) for noise in (0, 12))
    change = noisy.astype(int) - plain
    assert change[(plain > 40) & (plain < 215)].std() == pytest.approx(12, rel=0.05)
    assert abs(change[(plain > 40) & (plain < 215)].mean()) < 0.2
    assert np.array_equal(noisy, render_scene(split_scene(WorldSettings(noise=12), "train", 0)))


def test_less_contrast_brings_all_colours_closer_together_in_proportion() -> None:
    scene, dull = (split_scene(WorldSettings(contrast=contrast), "train", 0) for contrast in (1.0, 0.4))
    first, second = (
        [np.array(centre(render_scene(s)[3], cell, 16)) for cell in s.cells[0] if cell is not None]
        for s in (scene, dull)
    )
    for a, b in ((0, 1), (1, 2), (2, 3)):
        assert np.abs(second[a] - second[b]).sum() == pytest.approx(0.4 * np.abs(first[a] - first[b]).sum(), abs=3)


def test_labels_name_what_every_patch_shows() -> None:
    colours = list(COLOURS)
    for index in range(10):
        scene = scene_of(f"train-{index:06d}-who", DEFAULT)
        labels, frames_THWC = patch_labels(scene, 8, 4), render_scene(scene)
        assert labels.shape == (8, 4, 4, 3)
        for step, row, col in np.ndindex(8, 4, 4):
            colour, shape, light = labels[step, row, col]
            pixel = centre(frames_THWC[4 * step + 3], (row, col), 16)
            assert pixel == (list(COLOURS[colours[colour - 1]]) if colour else BACKGROUND)
            if not colour:
                assert (shape, light) == (0, 0)
                continue
            i = scene.colours.index(colours[colour - 1])
            assert SHAPES[shape - 1] == scene.shapes[i]
            patch = frames_THWC[4 * step + 3, row * 16 : row * 16 + 16, col * 16 : col * 16 + 16]
            assert (light == 2) == bool((patch == 255).all(-1).any())


def test_labels_follow_the_number_of_blocks_and_tokens() -> None:
    scene = split_scene(DEFAULT, "train", 3)
    plain = patch_labels(scene, 8, 4)
    assert np.array_equal(patch_labels(scene, 8, 8), plain.repeat(2, axis=1).repeat(2, axis=2))
    assert np.array_equal(patch_labels(scene, 16, 4), plain.repeat(2, axis=0))
    assert np.array_equal(patch_labels(scene, 4, 4), plain[1::2])
    with pytest.raises(ValueError, match="blocks=0"):
        patch_labels(scene, 0, 4)
