"""Clips of one file in one opening, never past their end; sizes; frames as bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cluenet.config.data import DataSection, Size
from cluenet.contracts import VideoFile
from cluenet.decoding import FramePolicy, decode_clips, decode_frames, encode_frames, target_size
from cluenet.errors import MediaError
from cluenet.plugins import load_components
from cluenet.records import Frames
from cluenet.testing.videos import counting_frames, read_number, write_empty, write_frame_folder, write_video
from cluenet_components.readers.pyav import PyavFile, PyavReader

load_components(only=("readers", "samplers", "clue_sources"))

FPS = 10


def policy(frames: int = 4, **changes: Any) -> FramePolicy:
    values = {
        "reader": {"name": "pyav"}, "fallback": None, "sampler": {"name": "uniform", "frames": frames},
        "size": {"height": 32, "width": 48}, "codec": "lossless", **changes,
    }  # fmt: skip
    return FramePolicy.from_dict(values)


def numbers(outcome: Frames | MediaError) -> list[int]:
    assert isinstance(outcome, Frames), outcome
    return [read_number(frame_HWC) for frame_HWC in outcome.frames_THWC]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """5 s, frame i at i / 10 s."""
    frames_THWC = counting_frames(50, height=64, width=96)
    return str(write_video(tmp_path_factory.mktemp("videos") / "a.mp4", frames_THWC, fps=FPS, gop=8, bframes=2))


# ----------------------------------------------------------------------------------------------------- decode_clips


def test_whole_file(video: str) -> None:
    [frames] = decode_clips(video, None, [(0.0, None)], policy())
    assert numbers(frames) == [6, 18, 31, 43]
    assert frames.frames_THWC.shape == (4, 32, 48, 3)
    assert frames.duration_seconds == pytest.approx(5.0)
    assert frames.seconds_T.tolist() == pytest.approx([0.6, 1.8, 3.1, 4.3])


def test_clips_overlap_repeat_and_keep_their_order(video: str) -> None:
    clips = [(3.0, 3.7), (0.0, 0.7), (0.4, 1.1), (3.0, 3.7)]
    outcomes = decode_clips(video, None, clips, policy(8))
    assert [numbers(outcome) for outcome in outcomes] == [
        list(range(30, 38)), list(range(8)), list(range(4, 12)), list(range(30, 38)),
    ]  # fmt: skip
    assert outcomes[0].seconds_T.tolist() == pytest.approx([i / 10 for i in range(8)]), "from the clip's start"
    assert outcomes[0].duration_seconds == pytest.approx(0.7)


def test_one_opening_and_one_pass_for_all_clips(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    asked: list[list[int]] = []
    real_open, real_frames = PyavReader.open, PyavFile.frames

    def counted_open(self: PyavReader, path: str, *, fps: float | None = None) -> VideoFile:
        opened.append(path)
        return real_open(self, path, fps=fps)

    def counted_frames(self: PyavFile, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        asked.append(list(indices))
        return real_frames(self, indices, size)

    monkeypatch.setattr(PyavReader, "open", counted_open)
    monkeypatch.setattr(PyavFile, "frames", counted_frames)
    decode_clips(video, None, [(0.0, 0.7), (0.4, 1.1), (2.0, 2.7)], policy(8))
    assert opened == [video]
    assert asked == [[*range(12), *range(20, 28)]], "shared frames once"


@given(start=st.floats(0, 4.9), length=st.floats(0.1, 5), frames=st.integers(1, 12))
def test_nothing_is_shown_from_outside_the_clip(video: str, start: float, length: float, frames: int) -> None:
    end = start + length
    [outcome] = decode_clips(video, None, [(start, end)], policy(frames, size={"height": 16, "width": 16}))
    shown = [number / FPS for number in numbers(outcome)]
    assert len(shown) == frames
    assert start - 1e-6 <= min(shown)
    assert max(shown) <= end + 1e-6
    assert (outcome.seconds_T >= 0).all()
    assert np.allclose(outcome.seconds_T + start, shown, atol=1e-5)
    assert outcome.duration_seconds == pytest.approx(min(end, 5.0) - start)


def test_a_clip_on_a_frame_s_time_includes_it(video: str) -> None:
    [outcome] = decode_clips(video, None, [(0.3, 0.6)], policy(4))
    assert numbers(outcome) == [3, 4, 5, 6]


def test_a_clip_shorter_than_its_frames_repeats_them(video: str) -> None:
    [outcome] = decode_clips(video, None, [(1.0, 1.1)], policy(5))
    assert numbers(outcome) == [10, 10, 11, 11, 11]


@pytest.mark.parametrize("clip", [(5.0, 6.0), (70.0, None), (1.01, 1.09)])
def test_a_clip_without_a_frame_is_an_error_of_its_own(video: str, clip: tuple[float, float | None]) -> None:
    bad, good = decode_clips(video, None, [clip, (0.0, 0.3)], policy())
    assert isinstance(bad, MediaError)
    assert bad.reason == "outside"
    assert video in bad.message
    assert "5.00 s" in bad.message, "it says how long the file is"
    assert numbers(good) == [0, 1, 2, 3]
    assert [type(only) for only in decode_clips(video, None, [clip], policy())] == [MediaError]


def test_a_file_that_cannot_be_read_raises(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as error:
        decode_clips(str(write_empty(tmp_path / "empty.mp4")), None, [(0.0, None)], policy())
    assert error.value.reason == "empty"


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader `pyav` cannot decode frame 10 of any video."""
    real = PyavFile.frames

    def frames(self: PyavFile, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        if 10 in indices:
            raise MediaError("corrupt", f"{self.path}: frame 10")
        return real(self, indices, size)

    monkeypatch.setattr(PyavFile, "frames", frames)


@pytest.mark.usefixtures("damaged")
def test_damage_costs_the_clips_it_lies_in(video: str) -> None:
    clips: list[tuple[float, float | None]] = [(0.0, 0.3), (0.8, 1.1), (90.0, None), (2.0, 2.3)]
    whole, broken, outside, last = decode_clips(video, None, clips, policy())
    assert (numbers(whole), numbers(last)) == ([0, 1, 2, 3], [20, 21, 22, 23])
    assert isinstance(broken, MediaError)
    assert isinstance(outside, MediaError)
    assert (broken.reason, outside.reason) == ("corrupt", "outside")


@pytest.mark.usefixtures("damaged")
def test_damage_fails_the_file_while_another_reader_can_be_tried(video: str) -> None:
    first, second = {"name": "pyav", "strategy": "scan"}, {"name": "pyav", "strategy": "seek"}
    made, clips = policy(reader=first, fallback=second), [(0.0, 0.3), (0.8, 1.1)]
    for reader in (None, first):
        with pytest.raises(MediaError, match="frame 10"):
            decode_clips(video, None, clips, made, reader=reader)
    whole, broken = decode_clips(video, None, clips, made, reader=second)
    assert numbers(whole) == [0, 1, 2, 3]
    assert isinstance(broken, MediaError)


def test_folder_of_frames(tmp_path: Path) -> None:
    folder = write_frame_folder(tmp_path / "frames", counting_frames(12))
    [outcome] = decode_clips(str(folder), 2.0, [(1.0, 3.0)], policy(5))
    assert numbers(outcome) == [2, 3, 4, 5, 6]


def test_another_reader_can_be_given(video: str) -> None:
    nowhere = policy(reader={"name": "decord"})
    [outcome] = decode_clips(video, None, [(0.0, 0.3)], nowhere, reader={"name": "pyav", "strategy": "scan"})
    assert numbers(outcome) == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("video_size", "size", "expected"),
    [
        ((480, 640), {"height": 64, "width": 64}, (64, 64)),
        ((480, 640), {"max_pixels": 200704}, (384, 512)),
        ((640, 480), {"max_pixels": 200704}, (512, 384)),
        ((480, 640), {"max_pixels": 200704, "multiple": 28}, (364, 504)),
        ((100, 100), {"max_pixels": 200704}, (96, 96)),
        ((20, 1000), {"max_pixels": 200704}, (32, 992)),
    ],
)
def test_target_size(video_size: tuple[int, int], size: dict[str, int], expected: tuple[int, int]) -> None:
    assert target_size(*video_size, Size(**size)) == expected


@given(
    height=st.integers(8, 4000), width=st.integers(8, 4000), pixels=st.integers(256, 10**6), multiple=st.integers(1, 64)
)
def test_max_pixels_is_a_maximum_and_the_shape_is_kept(height: int, width: int, pixels: int, multiple: int) -> None:
    out_height, out_width = target_size(height, width, Size(max_pixels=pixels, multiple=multiple))
    assert out_height % multiple == out_width % multiple == 0
    assert min(out_height, out_width) >= multiple
    if min(out_height, out_width) > multiple:  # otherwise a side stands at its least
        assert out_height * out_width <= pixels
        scale = min(1, math.sqrt(pixels / (height * width)))
        assert -1e-6 <= height * scale - out_height < multiple
        assert -1e-6 <= width * scale - out_width < multiple


# ----------------------------------------------------------------------------------------------------------- policy


def test_a_policy_is_plain_values_and_comes_back() -> None:
    made = FramePolicy.from_section(DataSection(size=Size(max_pixels=10000)))
    assert FramePolicy.from_dict(made.to_dict()) == made
    assert made.readers() == ["decord", "pyav"]
    assert FramePolicy.from_section(DataSection(fallback_reader=None)).readers() == ["decord"]


def test_the_fingerprint_changes_with_what_changes_the_frames() -> None:
    same = policy(reader={"name": "decord"}, fallback={"name": "pyav"})
    assert policy().fingerprint() == same.fingerprint(), "readers agree, so they do not count"
    others = [
        policy(5),
        policy(size={"height": 32, "width": 32}),
        policy(codec="jpeg95"),
        policy(sampler={"name": "fps"}),
    ]
    assert len({policy().fingerprint(), *(other.fingerprint() for other in others)}) == 5
    assert policy(sampler={"name": "uniform"}).fingerprint() == policy(16).fingerprint(), "defaults spelled out or not"


# ------------------------------------------------------------------------------------------------------------ bytes


def some_frames(count: int = 3, height: int = 24, width: int = 40) -> Frames:
    y, x = np.mgrid[0:height, 0:width] / 8
    pictures = [np.stack([np.sin(x + t), np.cos(y - t), np.sin(x + y)], -1) * 100 + 128 for t in range(count)]
    return Frames(np.stack(pictures).astype(np.uint8), np.arange(count) / 3, count / 3)


@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_lossless_is_lossless(pixels: np.ndarray) -> None:
    frames = Frames(pixels, np.arange(len(pixels)) * (1 / 3), 1.5)
    back = decode_frames(encode_frames(frames, "lossless"))
    assert np.array_equal(back.frames_THWC, pixels)
    assert np.array_equal(back.seconds_T, frames.seconds_T)
    assert back.seconds_T.dtype == np.float64
    assert back.duration_seconds == 1.5


def test_lossless_bytes_of_a_smooth_picture_are_smaller_than_its_zstd() -> None:
    frames = some_frames(4, 96, 128)
    raw = pa.compress(frames.frames_THWC.tobytes(), codec="zstd", asbytes=True)
    assert len(encode_frames(frames, "lossless")) < 0.8 * len(raw)


def test_lossless_bytes_without_the_row_filter_are_still_read() -> None:
    """As earlier versions stored them."""
    frames = some_frames()
    pixels = pa.compress(frames.frames_THWC.tobytes(), codec="zstd", asbytes=True)
    head = {"codec": "lossless", "shape": frames.frames_THWC.shape, "seconds": frames.seconds_T.tolist(),
            "duration": 1.0, "parts": [len(pixels)]}  # fmt: skip
    text = json.dumps(head).encode()
    blob = b"CNF1" + len(text).to_bytes(4, "little") + text + pixels
    assert np.array_equal(decode_frames(blob).frames_THWC, frames.frames_THWC)


def test_encoding_leaves_the_frames_alone_and_takes_any_layout() -> None:
    frames = some_frames()
    turned = Frames(frames.frames_THWC.transpose(0, 2, 1, 3), frames.seconds_T, 1.0)
    before = turned.frames_THWC.copy()
    assert np.array_equal(decode_frames(encode_frames(turned, "lossless")).frames_THWC, before)
    assert np.array_equal(turned.frames_THWC, before)


def test_jpeg_is_close_and_smaller() -> None:
    frames = some_frames(8, 96, 128)
    noisy = frames.frames_THWC ^ np.random.default_rng(0).integers(0, 4, frames.frames_THWC.shape, np.uint8)
    frames = Frames(noisy, frames.seconds_T, frames.duration_seconds)
    blob = encode_frames(frames, "jpeg95")
    back = decode_frames(blob)
    assert np.abs(back.frames_THWC.astype(int) - noisy).mean() < 2
    assert np.array_equal(back.seconds_T, frames.seconds_T)
    assert len(blob) < len(encode_frames(frames, "lossless"))


def test_unknown_codecs_are_named() -> None:
    with pytest.raises(ValueError, match="known: lossless, jpeg95"):
        encode_frames(some_frames(), "png")


@pytest.mark.parametrize("codec", ["lossless", "jpeg95"])
def test_damaged_bytes_are_a_value_error(codec: str) -> None:
    blob = encode_frames(some_frames(), codec)
    for cut in [0, 3, 4, 6, 8, 30, len(blob) // 2, len(blob) - 40]:
        with pytest.raises(ValueError, match="encoded frames"):
            decode_frames(blob[:cut])
    with pytest.raises(ValueError, match="encoded frames"):
        decode_frames(b"PAR1" + blob[4:])
