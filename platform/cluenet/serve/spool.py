"""Videos of requests on disk: written as they arrive, hashed, limited, and removed whatever happens.

Every process has a folder of its own (mode 0700) below `$TMPDIR/cluenet-spool-<user>`, and holds a lock on it for as long as
it lives. A process that starts removes the folders whose owner has died. POSIX only (`flock`).
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import uuid
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cluenet.config.serve import Limits
from cluenet.errors import StorageError
from cluenet.folders import storage_errors
from cluenet.serve.errors import ServeError

PIECE_BYTES = 1 << 20
"""Written and hashed at a time, in a thread."""
RETRY_SECONDS = 30.0
"""After which a full disk may have room again."""
LOCK = ".lock"
logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Spooled:
    """A video that is on disk, or will be once `on_disk` was called, until `cleanup`. Also a context manager.

    bring: puts a video whose content was known without reading it to `path`.
    """

    path: Path
    sha256: str
    bytes: int
    bring: Callable[[Path], Awaitable[None]] | None = field(default=None, repr=False)  # it knows the client's path

    async def on_disk(self) -> Path:
        """Where it lies from now on. Raises ServeError."""
        if self.bring is not None and not self.path.exists():
            await self.bring(self.path)
        return self.path

    def cleanup(self) -> None:
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Spooled:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()


class Spool:
    """A folder of this process alone. parent: where, `$TMPDIR` if None. Raises StorageError where it cannot be made safely."""

    def __init__(self, parent: str | Path | None = None):
        base = Path(parent or tempfile.gettempdir()) / f"cluenet-spool-{os.getuid()}"
        with storage_errors(base):
            _make_private(base)
            with _locked(base):
                _sweep(base)
                self.folder = Path(tempfile.mkdtemp(dir=base))
                lock = _lock(self.folder)
        assert lock is not None, "nobody else knows of the new folder"
        self._finalizer = weakref.finalize(self, _remove, self.folder, lock)

    def close(self) -> None:
        """Remove the folder with all that is in it; at the latest this happens when the process ends."""
        self._finalizer()

    def new_path(self) -> Path:
        """Where nothing is yet."""
        return self.folder / uuid.uuid4().hex

    async def save(self, chunks: AsyncIterable[bytes], most_bytes: int) -> Spooled:
        """Raises ServeError: 413 beyond `most_bytes`, 400 for nothing at all, 503 where the disk is full; and what `chunks` raises.
        Then no file is left."""
        with _disk_errors():
            handle, name = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                sha256, size = await _write(file, limited(chunks, most_bytes))
            if not size:
                raise ServeError(400, "invalid_request_error", "the video is empty", param="video", code="video_empty")
            return Spooled(Path(name), sha256, size)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@functools.cache
def process_spool() -> Spool:
    """The one of this process."""
    return Spool()


async def from_upload(chunks: AsyncIterable[bytes], limits: Limits) -> Spooled:
    """An uploaded video. Raises ServeError like `Spool.save`."""
    return await process_spool().save(chunks, limits.max_bytes)


async def limited(chunks: AsyncIterable[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    """The same chunks; raises ServeError 413 as soon as they are more than `most_bytes`, whatever was announced."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most_bytes:
            raise too_large(most_bytes)
        yield chunk


def too_large(most_bytes: int) -> ServeError:
    message = f"more than {most_bytes} bytes, the most that are taken. Send a shorter or smaller video."
    return ServeError(413, "invalid_request_error", message, param="video", code="too_many_bytes")


# --------------------------------------------------------------------------------------------------------- inside


async def _write(file: BinaryIO, chunks: AsyncIterable[bytes]) -> tuple[str, int]:
    """(SHA-256 in hex, bytes)"""
    digest, size = hashlib.sha256(), 0
    async for piece in _pieces(chunks):
        with _disk_errors():  # not of `chunks`: a client that goes away is an OSError too
            await asyncio.to_thread(_put, file, digest, piece)
        size += len(piece)
    return digest.hexdigest(), size


async def _pieces(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a thread each."""
    piece = bytearray()
    async for chunk in chunks:
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _put(file: BinaryIO, digest: hashlib._Hash, piece: bytes) -> None:
    digest.update(piece)
    file.write(piece)
    file.flush()


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("a video cannot be spooled: %s", os.strerror(error.errno or 0))
        message = "the server has no room for the video. Ask again later."
        raise ServeError(503, "overloaded_error", message, code="no_room", retry_after=RETRY_SECONDS) from None


def _make_private(folder: Path) -> None:
    """A folder in a place that all users may write to: it must be ours."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StorageError(f"{folder}: belongs to somebody else. Remove it, or set TMPDIR to a folder of your own.")
    folder.chmod(0o700)


def _sweep(base: Path) -> None:
    """Remove what processes left that ended without doing so. Only while `base` is locked."""
    for folder in base.iterdir():
        if folder.is_dir() and (lock := _lock(folder)) is not None:
            _remove(folder, lock)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """Nobody else makes or sweeps folders in `base` meanwhile."""
    handle = os.open(base / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock(folder: Path) -> int | None:
    """An open file that holds the lock until it is closed, at the latest when the process ends. None: somebody else has it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
