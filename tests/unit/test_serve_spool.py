"""Videos on disk: private, hashed, limited while they arrive, and gone afterwards whatever happens."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluenet.config.serve import Limits
from cluenet.errors import StorageError
from cluenet.serve import spool as spools
from cluenet.serve.errors import ServeError
from cluenet.serve.spool import LOCK, Spool, Spooled


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path)
    yield made
    made.close()


def left(spool: Spool) -> list[str]:
    return [path.name for path in spool.folder.iterdir() if path.name != LOCK]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def save(spool: Spool, *parts: bytes, most: int = 10**9) -> Spooled:
    return asyncio.run(spool.save(chunks(*parts), most))


def test_content_hash_and_size(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "PIECE_BYTES", 1000)
    parts = [bytes([number]) * (number * 7) for number in range(1, 60)]
    with save(spool, *parts) as saved:
        whole = b"".join(parts)
        assert saved.path.read_bytes() == whole
        assert (saved.sha256, saved.bytes) == (hashlib.sha256(whole).hexdigest(), len(whole))
        assert saved.path.parent == spool.folder
    assert left(spool) == []
    saved.cleanup()  # once more is no error


def test_nobody_else_can_read(spool: Spool) -> None:
    saved = save(spool, b"secret")
    modes = [path.stat().st_mode & 0o777 for path in (spool.folder.parent, spool.folder, saved.path)]
    assert modes == [0o700, 0o700, 0o600]


def test_the_limit_holds_while_the_video_arrives(spool: Spool) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield bytes(100)

    with pytest.raises(ServeError) as caught:
        asyncio.run(spool.save(endless(), 1000))
    assert (caught.value.status, caught.value.code) == (413, "too_many_bytes")
    assert given == 11
    assert left(spool) == []
    assert save(spool, bytes(1000), most=1000).bytes == 1000


def test_nothing_is_no_video(spool: Spool) -> None:
    with pytest.raises(ServeError) as caught:
        save(spool)
    assert (caught.value.status, caught.value.code) == (400, "video_empty")
    assert left(spool) == []


def test_nothing_is_left_after_an_error_of_the_client(spool: Spool) -> None:
    async def breaks_off() -> AsyncIterator[bytes]:
        yield bytes(3 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(spool.save(breaks_off(), 10**9))
    assert left(spool) == []


def test_nothing_is_left_after_a_cancellation(spool: Spool) -> None:
    async def test() -> None:
        arrived = asyncio.Event()

        async def stalls() -> AsyncIterator[bytes]:
            yield bytes(3 << 20)
            arrived.set()
            await asyncio.sleep(3600)

        task = asyncio.create_task(spool.save(stalls(), 10**9))
        await arrived.wait()
        assert len(left(spool)) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(test())
    assert left(spool) == []


def test_a_full_disk_is_503_and_names_no_path(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(spool.folder))

    monkeypatch.setattr(spools, "_put", full)
    with pytest.raises(ServeError) as caught:
        save(spool, b"video")
    assert (caught.value.status, caught.value.code) == (503, "no_room")
    assert "Retry-After" in caught.value.headers()
    assert str(spool.folder) not in str(caught.value)
    assert "No space left" in caplog.text
    assert left(spool) == []


def test_uploads_go_to_the_spool_of_the_process(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "process_spool", lambda: spool)
    saved = asyncio.run(spools.from_upload(chunks(b"video"), Limits(max_bytes=5)))
    assert saved.path.parent == spool.folder
    with pytest.raises(ServeError):
        asyncio.run(spools.from_upload(chunks(b"video", b"s"), Limits(max_bytes=5)))


# ------------------------------------------------------------------------------------------------- folders

OWNER = """
import asyncio, sys
from cluenet.serve.spool import Spool
async def chunks(): yield b"left behind"
spool = Spool(sys.argv[1])
print(asyncio.run(spool.save(chunks(), 100)).path, flush=True)
sys.stdin.read()
"""


def owner(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a spool with one file, until its input is closed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_dead_processes_left_is_swept_and_what_living_ones_have_is_not(tmp_path: Path) -> None:
    process, file = owner(tmp_path)
    try:
        Spool(tmp_path).close()
        assert file.read_bytes() == b"left behind", "its owner lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert file.exists(), "nothing removed it: the process was killed"
        made = Spool(tmp_path)
        assert not file.parent.exists()
        assert [path for path in made.folder.parent.iterdir() if path.name != LOCK] == [made.folder]
        made.close()
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_ends_takes_its_folder_along(tmp_path: Path) -> None:
    process, file = owner(tmp_path)
    assert file.exists()
    process.communicate()
    assert process.returncode == 0
    assert not file.parent.exists()


def test_a_folder_that_others_may_enter_is_closed_to_them(tmp_path: Path) -> None:
    base = tmp_path / f"cluenet-spool-{os.getuid()}"
    base.mkdir()
    base.chmod(0o777)
    Spool(tmp_path).close()
    assert base.stat().st_mode & 0o777 == 0o700


def test_a_link_laid_by_somebody_else_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"cluenet-spool-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="TMPDIR"):
        Spool(tmp_path)
    assert list(elsewhere.iterdir()) == []


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "cluenet-spool-12345"
    base.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(StorageError, match="belongs to somebody else"):
        Spool(tmp_path)
