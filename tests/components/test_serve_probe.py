"""Videos are measured without decoding them, and no file hangs, kills or fills the process that asks, or makes it open others."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cluenet.config.serve import Limits
from cluenet.processes import WorkerPool
from cluenet.serve import probe as probing
from cluenet.serve.errors import ServeError
from cluenet.serve.probe import VideoFacts, probe
from cluenet.testing.videos import (
    counting_frames,
    write_audio_only,
    write_empty,
    write_garbage,
    write_truncated,
    write_video,
)
from helpers import hostile_videos
from helpers.hostile_videos import with_frames, with_pause, with_png_size, with_size

FRAMES, RATE = 30, 10
LIMITS = Limits(decode_timeout_seconds=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    write_video(made / "good.mp4", counting_frames(FRAMES), fps=RATE)
    return made


def code(path: Path, limits: Limits = LIMITS) -> tuple[int, str | None]:
    with pytest.raises(ServeError) as caught:
        probe(path, limits)
    assert str(path.parent) not in str(caught.value), "the server's paths are its own"
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "flv", "ts", "m2ts"])
def test_sizes(folder: Path, suffix: str) -> None:
    path = write_video(folder / f"video.{suffix}", counting_frames(FRAMES), fps=RATE)
    unnamed = path.rename(folder / "spooled")  # the spool knows no suffixes
    assert probe(unnamed, LIMITS) == VideoFacts(pytest.approx(FRAMES / RATE, abs=0.11), FRAMES, 64, 64)


def test_b_frames_variable_rates_and_sound(folder: Path) -> None:
    seconds = [0.0, 0.1, 0.5, 0.6, 1.5, 2.0, 2.1, 2.2, 2.3, 7.0]
    path = write_video(folder / "odd.mp4", counting_frames(10), seconds=seconds, fps=RATE, bframes=2, audio=True)
    facts = probe(path, LIMITS)
    assert facts.frames == 10
    assert facts.seconds == pytest.approx(7.0, abs=0.2)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"max_frames": 29}, "frames"), ({"max_seconds": 2.9}, "seconds"), ({"max_pixels": 64 * 64 - 1}, "pixels")],
)
def test_limits(folder: Path, limits: dict[str, Any], expected: str) -> None:
    assert code(folder / "good.mp4", Limits(**limits)) == (413, f"too_many_{expected}")
    exact = Limits(max_frames=30, max_seconds=3.0, max_pixels=64 * 64)
    assert probe(folder / "good.mp4", exact).frames == FRAMES


def test_limits_hold_where_the_header_says_nothing(folder: Path) -> None:
    """A transport stream has no table of frames: they are counted, and no further than needed."""
    path = write_video(folder / "stream.ts", counting_frames(FRAMES), fps=RATE)
    assert code(path, Limits(max_frames=29)) == (413, "too_many_frames")
    assert code(path, Limits(max_seconds=2.5)) == (413, "too_many_seconds")


# ------------------------------------------------------------------------------------------------- hostile files


def test_no_videos(folder: Path) -> None:
    good = folder / "good.mp4"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "picture.mp4", format="PNG")
    (folder / "text.mp4").write_text("just text")
    (folder / "magic.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42")
    unknown, corrupt = (400, "video_unknown_container"), (400, "video_corrupt")
    assert code(write_garbage(folder / "garbage.mp4")) == unknown
    assert code(write_empty(folder / "empty.mp4")) == unknown
    assert code(folder / "picture.mp4") == unknown
    assert code(folder / "text.mp4") == unknown
    assert code(folder / "magic.mp4") == corrupt
    assert code(write_truncated(folder / "half.mp4", good)) == corrupt
    assert code(write_audio_only(folder / "sound.mp4")) == (400, "video_no_video_stream")


def test_headers_that_announce_too_much(folder: Path) -> None:
    good = folder / "good.mp4"
    assert code(with_frames(good, folder / "frames.mp4", 10**6)) == (413, "too_many_frames")
    assert code(with_pause(good, folder / "long.mp4", 2**28)) == (413, "too_many_seconds")
    status, _ = code(with_frames(good, folder / "table.mp4", 2**32 - 1))
    assert status in (400, 413)


def test_pictures_of_another_size_than_the_header_says(folder: Path) -> None:
    """What is decoded counts."""
    large = write_video(folder / "large.mp4", np.zeros((3, 320, 640, 3), np.uint8), fps=RATE)
    lying = with_size(large, folder / "lying.mp4", 64, 64)
    facts = probe(lying, LIMITS)
    assert (facts.width, facts.height) == (640, 320)
    status, _ = code(lying, Limits(max_pixels=64 * 64))
    assert status in (400, 413)
    assert probe(with_size(large, folder / "modest.mp4", 65535, 65535), LIMITS) == facts


@pytest.fixture(scope="module")
def png(folder: Path) -> Path:
    return write_video(folder / "png.mov", counting_frames(3), fps=RATE, codec="png", pixel_format="rgb24")


@pytest.mark.parametrize("side", [16_000, 60_000, 2**31 - 1])
def test_pictures_that_unpack_to_gigabytes(folder: Path, png: Path, side: int) -> None:
    assert probe(png, LIMITS).frames == 3
    assert code(with_png_size(png, folder / "bomb", side, side)) == (400, "video_corrupt")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in Linux's units")
def test_they_are_refused_by_their_size_and_not_by_the_memory_that_they_take(folder: Path, png: Path) -> None:
    bomb = with_png_size(png, folder / "bomb", 16_000, 16_000)  # 733 MiB as RGB
    pool = WorkerPool(1, recycle_after=9, memory_gib=4)
    try:
        peaks = [
            pool.result(pool.submit(hostile_videos.peak_mib, (str(path), LIMITS), timeout_seconds=60))
            for path in (png, bomb)
        ]
    finally:
        pool.close()
    assert peaks[1] - peaks[0] < 100


@contextmanager
def listening() -> Iterator[tuple[int, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server.getsockname()[1], server


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "hls of a file": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{good}'\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
    "dash": '<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>',
    "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
    "smil": '<smil><body><video src="http://127.0.0.1:{port}/a.mp4"/></body></smil>',
    "hls behind a magic word": "G#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n",
    "sdp behind a magic word": "0000ftyp\nv=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
}  # fmt: skip


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["", ".m3u8", ".mp4"])
def test_playlists_open_nothing_else(folder: Path, name: str, suffix: str) -> None:
    with listening() as (port, server):
        path = folder / f"playlist{suffix}"
        path.write_text(PLAYLISTS[name].format(port=port, good=folder / "good.mp4"))
        status, found = code(path)
        assert (status, found in ("video_unknown_container", "video_corrupt")) == (400, True)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_file_that_only_starts_like_a_container_is_refused(folder: Path) -> None:
    """FFmpeg finds H.264 behind the first word of a GIF; what else it may find is not opened either."""
    stream = write_video(folder / "stream.h264", counting_frames(FRAMES), fps=RATE).read_bytes()
    path = folder / "disguised"
    path.write_bytes(b"GIF8" + stream)
    with av.open(str(path)) as container:
        assert container.format.name == "h264"
    assert code(path) == (400, "video_corrupt")


def test_without_the_check_a_playlist_would_be_followed(folder: Path) -> None:
    """Why the check is there: FFmpeg takes this text for a video and opens the file that it names."""
    path = folder / "list.ffconcat"
    path.write_text("ffconcat version 1.0\nfile 'good.mp4'\n")
    with av.open(str(path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == FRAMES


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe that nobody writes to")
def test_a_file_that_hangs_costs_its_time_and_no_more(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert code(folder / "pipe", Limits(decode_timeout_seconds=0.5)) == (400, "video_timeout")
    assert probe(folder / "good.mp4", LIMITS).frames == FRAMES


def test_a_file_that_ends_the_process_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(probing, "read_facts", hostile_videos.end_process)
        assert code(folder / "good.mp4") == (400, "video_crashed")
    assert probe(folder / "good.mp4", LIMITS).frames == FRAMES


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's RLIMIT_DATA")
def test_a_file_that_takes_all_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(probing, "read_facts", hostile_videos.fill_memory)
        assert code(folder / "good.mp4") == (400, "video_memory")
    assert probe(folder / "good.mp4", LIMITS).frames == FRAMES


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_end_in_facts_or_a_refusal(folder: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(["mp4", "mkv", "ts", "avi"]))
    source = folder / f"source.{suffix}"
    if not source.exists():
        write_video(source, counting_frames(5), fps=RATE)
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    damaged = folder / "damaged"
    damaged.write_bytes(content)
    try:
        status = 200 if probe(damaged, LIMITS).frames else 0
    except ServeError as error:
        status = error.status
    assert status in (200, 400, 413)


def test_many_at_a_time(folder: Path) -> None:
    async def test() -> list[VideoFacts]:
        return await asyncio.gather(*(asyncio.to_thread(probe, folder / "good.mp4", LIMITS) for _ in range(20)))

    assert {facts.frames for facts in asyncio.run(test())} == {FRAMES}


def test_the_process_that_asked_can_end(folder: Path) -> None:
    """The workers do not keep it alive."""
    script = "import sys; from cluenet.serve.probe import probe; from cluenet.config.serve import Limits\n" \
             "if __name__ == '__main__': print(probe(sys.argv[1], Limits()).frames)"  # fmt: skip
    file = folder / "ask.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(file), str(folder / "good.mp4")], capture_output=True, text=True, timeout=60, env=environment
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{FRAMES}\n")
