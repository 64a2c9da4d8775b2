"""What holds for every sampler, third parties' included, and what each built-in one promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluenet.contracts import Sampler, VideoFile
from cluenet.plugins import load_components
from cluenet.registry import register

load_components(only=("samplers",))

SAMPLERS = [
    name
    for name in register.sampler
    if not any(f.is_required() for f in register.sampler[name].Config.model_fields.values())
]


class Scenes(VideoFile):
    """A video without a file: grey frames whose brightness is given; counts what is decoded."""

    def __init__(self, brightness_F: Sequence[int], seconds_F: Sequence[float] | None = None):
        self.brightness_F = np.array(brightness_F, dtype=np.uint8)
        self.seconds_F = (
            np.arange(len(brightness_F)) / 25 if seconds_F is None else np.array(seconds_F, dtype=np.float64)
        )
        self.duration_seconds = float(self.seconds_F[-1]) + 0.04
        self.height, self.width = 48, 64
        self.decoded: list[int] = []

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        self.decoded += indices
        height, width = size or (self.height, self.width)
        return np.broadcast_to(
            self.brightness_F[list(indices)][:, None, None, None], (len(indices), height, width, 3)
        ).copy()


def sample(video: VideoFile, first: int, last: int, name: str, **settings: Any) -> list[int]:
    return register.sampler.parse({"name": name, **settings}).build().sample(video, first, last)


def noise(count: int, seed: int) -> Scenes:
    return Scenes(np.random.default_rng(seed).integers(0, 256, count))


# ---------------------------------------------------------------------------------------------------- the contract


def test_the_built_in_ones_are_there() -> None:
    assert {"uniform", "videochat2", "fps", "scene_change"} <= set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
@given(count=st.integers(1, 300), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 3))
def test_indices_lie_in_the_clip_ascend_and_are_the_same_again(name: str, count: int, cut, seed: int) -> None:
    first, last = sorted(int(part * (count - 1)) for part in cut)
    video = noise(count, seed)
    indices = sample(video, first, last, name)
    assert issubclass(register.sampler[name], Sampler)
    assert indices
    assert all(type(index) is int for index in indices)
    assert indices == sorted(indices)
    assert first <= indices[0] <= indices[-1] <= last
    assert all(first <= index <= last for index in video.decoded), "it looked outside the clip"
    assert sample(noise(count, seed), first, last, name) == indices


# --------------------------------------------------------------------------------------------------------- uniform


@pytest.mark.parametrize(
    ("first", "last", "frames", "expected"),
    [
        (0, 99, 4, [12, 37, 62, 87]),
        (0, 99, 1, [50]),
        (10, 17, 8, list(range(10, 18))),
        (5, 7, 6, [5, 5, 6, 6, 7, 7]),
        (3, 3, 3, [3, 3, 3]),
        (0, 1, 3, [0, 1, 1]),
    ],
)
def test_uniform_takes_the_middles_of_equal_parts(first: int, last: int, frames: int, expected: list[int]) -> None:
    assert sample(Scenes([0] * 100), first, last, "uniform", frames=frames) == expected


# ------------------------------------------------------------------------------------------------------------- fps


def test_fps_takes_one_frame_per_period() -> None:
    video = Scenes([0] * 100)  # 25 frames per second, 4 s
    assert sample(video, 0, 99, "fps", rate=1) == [0, 25, 50, 75]
    assert sample(video, 10, 59, "fps", rate=1) == [10, 35]
    assert sample(video, 0, 99, "fps", rate=25, max_frames=100) == list(range(100))


def test_fps_goes_by_true_times() -> None:
    seconds = [0, 0.1, 0.2, 0.3, 0.4, 2.0, 2.1, 4.0]  # five frames, then two long pauses
    assert sample(Scenes([0] * 8, seconds), 0, 7, "fps", rate=0.5) == [0, 5, 7]


def test_fps_faster_than_the_video_repeats_nothing() -> None:
    assert sample(Scenes([0] * 10), 2, 6, "fps", rate=100) == [2, 3, 4, 5, 6]


def test_fps_at_any_rate_costs_no_more_than_its_budget() -> None:
    assert len(sample(Scenes([0] * 100), 0, 99, "fps", rate=1e12, max_frames=10)) == 10


def test_fps_over_budget_covers_the_whole_clip() -> None:
    indices = sample(Scenes([0] * 1000), 0, 999, "fps", rate=25, max_frames=10)
    assert indices == [50 + 100 * i for i in range(10)]


# ---------------------------------------------------------------------------------------------------- scene_change


def test_scene_change_takes_the_frames_after_the_cuts() -> None:
    cuts = [17, 71, 76]
    brightness = np.zeros(100, dtype=int)
    for cut in cuts:
        brightness[cut:] += 70
    indices = sample(Scenes(brightness), 0, 99, "scene_change", frames=8, probes=100)
    assert len(indices) == len(set(indices)) == 8
    assert set(cuts) <= set(indices)


def test_scene_change_leaves_no_part_empty_though_all_changes_are_in_one() -> None:
    brightness = [0] * 180 + [0, 200] * 10
    indices = sample(Scenes(brightness), 0, 199, "scene_change", frames=8)
    assert max(np.diff([0, *indices, 199])) <= 200 / 4 + 1, "half of the frames are spread evenly"
    assert sum(index >= 180 for index in indices) >= 4


@pytest.mark.parametrize("frames", [2, 3, 8, 15])
def test_scene_change_keeps_as_many_frames_as_asked(frames: int) -> None:
    assert len(sample(noise(200, 0), 20, 150, "scene_change", frames=frames)) == frames
    assert len(sample(Scenes([7] * 200), 20, 150, "scene_change", frames=frames)) == frames, "a still picture"
    assert sample(Scenes([7] * 200), 20, 21, "scene_change", frames=frames) == sample(
        Scenes([7] * 200), 20, 21, "uniform", frames=frames
    )


def test_scene_change_looks_at_a_bounded_number_of_thumbnails() -> None:
    video = noise(5000, 0)
    sample(video, 0, 4999, "scene_change", frames=4, probes=20)
    assert len(video.decoded) == 20
