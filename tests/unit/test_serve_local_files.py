"""Local videos that are asked about again: not read while they stay as they are, read as soon as they may have changed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluenet.config.serve import ServeSection
from cluenet.serve.errors import ServeError
from cluenet.serve.local_files import SETTLED_NS, LocalFiles
from cluenet.serve.spool import LOCK, Spool, Spooled


class Counting(Spool):
    """Counts the videos that it writes."""

    saved = 0

    async def save(self, chunks, most_bytes: int) -> Spooled:
        self.saved += 1
        return await super().save(chunks, most_bytes)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Counting]:
    made = Counting(tmp_path / "spool")
    yield made
    assert [path.name for path in made.folder.iterdir()] == [LOCK], "no video is left, whatever happened"
    made.close()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "v.mp4"
    path.write_bytes(b"first")
    return path


def files(spool: Spool, video: Path, *, later: bool = True) -> LocalFiles:
    """`later`: long after the video was written."""
    section = ServeSection(allowed_roots=(str(video.parent),))
    return LocalFiles(section, spool, clock=lambda: time.time_ns() + (2 * SETTLED_NS if later else 0))


def content(local: LocalFiles, video: Path) -> bytes:
    async def read() -> bytes:
        with await local.fetch(str(video)) as spooled:
            return (await spooled.on_disk()).read_bytes()

    return asyncio.run(read())


def sha256(local: LocalFiles, video: Path) -> str:
    async def read() -> str:
        with await local.fetch(str(video)) as spooled:
            return spooled.sha256

    return asyncio.run(read())


def test_a_known_video_is_read_only_when_its_frames_are_wanted(spool: Counting, video: Path) -> None:
    local = files(spool, video)
    first = sha256(local, video)
    assert (sha256(local, video), spool.saved) == (first, 1)
    assert (content(local, video), spool.saved) == (b"first", 2)


def test_a_changed_video_is_another_one_even_with_the_old_size_and_time(spool: Counting, video: Path) -> None:
    local, before = files(spool, video), video.stat()
    first = sha256(local, video)
    time.sleep(0.02)  # more than a step of the file system's clock
    video.write_bytes(b"other")
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256(local, video) != first
    assert content(local, video) == b"other"


def test_a_video_that_was_written_just_now_is_read_every_time(spool: Counting, video: Path) -> None:
    local = files(spool, video, later=False)
    assert sha256(local, video) == sha256(local, video)
    assert spool.saved == 2


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"other"), Path.unlink])
def test_a_video_that_changes_before_its_frames_are_read_is_not_taken_for_the_old_one(
    spool: Counting, video: Path, change
) -> None:
    local = files(spool, video)
    sha256(local, video)

    async def late() -> None:
        with await local.fetch(str(video)) as spooled:
            change(video)
            await spooled.on_disk()

    with pytest.raises(ServeError) as found:
        asyncio.run(late())
    assert (found.value.status, found.value.code) == (503, "video_changed")
    assert found.value.retry_after


def test_a_known_video_is_refused_once_its_path_leads_outside(spool: Counting, video: Path, tmp_path: Path) -> None:
    local = files(spool, video)
    sha256(local, video)
    video.rename(tmp_path / "outside.mp4")
    video.symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(PermissionError):
        asyncio.run(local.fetch(str(video)))
