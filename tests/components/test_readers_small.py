"""Small files, which are decoded as they are opened, and the filter graphs that files of one kind share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cluenet.errors import MediaError
from cluenet.testing.videos import (
    counting_frames,
    write_video,
)
from cluenet_components.readers import _index, _small, pyav
from helpers.readers import EXACT, HARD, numbers, opened, video_of_kind


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`video("b_frames.mp4")` is made once."""
    return partial(video_of_kind, tmp_path_factory.mktemp("videos"))


def test_a_small_file_is_decoded_as_it_is_opened(tmp_path: Path) -> None:
    noise_THWC = np.random.default_rng(0).integers(0, 256, (16, 96, 96, 3), np.uint8)  # more bytes than FFmpeg buffers
    path = write_video(tmp_path / "small.mov", noise_THWC, codec="png", pixel_format="rgb24")
    with opened("pyav", path) as file:
        path.write_bytes(b"")
        assert np.array_equal(file.frames([15, 3, 12], None), noise_THWC[[15, 3, 12]])


@pytest.mark.parametrize("name", [*EXACT, *HARD])
def test_small_files_have_the_times_of_large_ones(video, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with opened("pyav", video(name)) as file:
        expected = (file.seconds_F.tolist(), file.duration_seconds, file.width, file.height)
    monkeypatch.setattr(_small, "SMALL_PIXELS", 2**30)
    with opened("pyav", video(name)) as file:
        assert (file.seconds_F.tolist(), file.duration_seconds, file.width, file.height) == expected
        whole = not name.endswith((".flv", ".mkv", ".webm", ".ts", ".mpg", ".avi")) and name != "edited.mp4"
        assert bool(file._kept) == whole  # type: ignore[attr-defined]


def test_what_claims_to_be_small_is_not_decoded_whole(tmp_path: Path) -> None:
    """A header's size says little: after so many pixels it counts as any other file."""
    path = write_video(tmp_path / "large.mp4", counting_frames(16, height=256, width=256))
    read = []

    def demux(_):
        for packet in container.demux(stream):
            read.append(packet)
            yield packet

    container, stream = _index.open_container(path)
    with container:
        assert not _small.is_small(container, stream)
        assert _small.decode_small(SimpleNamespace(demux=demux), stream) == []  # type: ignore[arg-type]
    assert len(read) == _small.SMALL_PIXELS // 256**2 + 1


def test_a_small_file_that_is_broken_off_in_its_last_frame_is_told(tmp_path: Path) -> None:
    """Motion JPEG would show the half that is there."""
    path = write_video(
        tmp_path / "small.mov", counting_frames(8, height=64, width=64), codec="mjpeg", pixel_format="yuvj420p",
        container_options={"movflags": "faststart"},
    )  # fmt: skip
    with opened("pyav", path) as file:
        assert file._kept  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MediaError, match="broken off") as error:
        opened("pyav", path)
    assert error.value.reason == "corrupt"


def test_thousands_of_tiny_frames_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "tiny.mp4", counting_frames(40, height=64, width=64))
    monkeypatch.setattr(_small, "SMALL_FRAMES", 39)
    with opened("pyav", path) as file:
        assert not file._kept  # type: ignore[attr-defined]
        assert numbers(file.frames([39, 2], None)) == [39, 2]


def test_quicktime_that_does_not_begin_with_its_name(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "old.mov", counting_frames(8, height=64, width=64), codec="mjpeg", pixel_format="yuvj420p"
    )
    content = path.read_bytes()
    length = int.from_bytes(content[:4], "big")
    assert content[4:8] == b"ftyp"
    path.write_bytes(length.to_bytes(4, "big") + b"free" + content[8:])  # places in the file stay as they are
    with opened("pyav", path) as file:
        assert file.index.format == _index.MP4  # type: ignore[attr-defined]
        assert numbers(file.frames([7, 3], None)) == [7, 3]


def test_files_of_one_kind_share_a_filter_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyav, "IDLE", {})
    made, make = [], pyav.Pictures._graph_for
    monkeypatch.setattr(pyav.Pictures, "_graph_for", lambda self, frame: made.append(frame) or make(self, frame))
    names = ["a", "b", "c", "d"]
    paths = {name: tmp_path / f"{name}.mp4" for name in names}
    for number, name in enumerate(names):
        write_video(paths[name], counting_frames(8 * number + 8, height=64, width=96)[-8:])

    def read(name: str) -> list[int]:
        with opened("pyav", paths[name]) as file:
            return numbers(file.frames(range(8), (32, 48)))

    one_by_one = {name: read(name) for name in names}
    assert one_by_one == {name: list(range(8 * number, 8 * number + 8)) for number, name in enumerate(names)}
    assert len(made) == 1
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            assert dict(zip(names, pool.map(read, names), strict=True)) == one_by_one


def test_a_filter_graph_is_used_by_one_at_a_time_and_not_again_after_an_error(
    video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav, "IDLE", {})
    with _index.open_container(video("constant.mp4"))[0] as container:
        frame = next(container.decode(video=0))
    one, other, third = (pyav.Pictures([0, 1], 32, 32) for _ in range(3))
    one.add(0, frame)
    one.finish()
    other.add(0, frame)
    third.add(0, frame)
    assert other._graph is one._graph is not third._graph
    with pytest.raises(KeyError):
        other.add(7, frame)  # not wanted
    assert not pyav.IDLE


def test_few_filter_graphs_are_kept(video, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyav, "IDLE", {})
    with opened("pyav", video("constant.mp4")) as file:
        for side in range(16, 48, 2):
            file.frames([0], (side, side))
        assert [made_for[0] for made_for in pyav.IDLE] == list(range(48 - 2 * pyav.IDLE_AT_MOST, 48, 2))
        kept = dict(pyav.IDLE)
        file.frames([0], (720, 1280))
        assert kept == pyav.IDLE, "a large one is not: it holds as much memory as its pictures"
