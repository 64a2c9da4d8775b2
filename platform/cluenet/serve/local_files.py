"""Files below allowed folders, opened so that neither `..` nor a symbolic link, nor one exchanged meanwhile, leads outside; and
spooled, which for a file that was asked about before and has not changed needs neither reading nor copying."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluenet.config.serve import ServeSection
from cluenet.model.engine.cache import ByteCache
from cluenet.serve.errors import ServeError
from cluenet.serve.spool import PIECE_BYTES, Spool, Spooled

FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe without a writer would block
FILES_KNOWN = 10_000
SETTLED_NS = 2_000_000_000
"""A file is known by its times only where these are older: within the steps of a file system's clock it may change without
another time (as in git's racy-git.txt)."""


@dataclass(frozen=True)
class Identity:
    """Of a file with a certain content: writing to it, or putting another one in its place, makes another identity."""

    device: int
    inode: int
    bytes: int
    written_ns: int
    changed_ns: int

    @classmethod
    def of(cls, handle: int) -> Identity:
        found = os.fstat(handle)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class LocalFiles:
    """`clock`: nanoseconds since 1970."""

    def __init__(self, section: ServeSection, spool: Spool, *, clock: Callable[[], int] = time.time_ns):
        self._roots, self._most, self._spool, self._clock = (
            section.allowed_roots,
            section.limits.max_bytes,
            spool,
            clock,
        )
        self._known: ByteCache[str] = ByteCache(FILES_KNOWN, lambda _: 1)  # SHA-256 by identity

    async def fetch(self, path: str) -> Spooled:
        """Raises OSError for what lies outside or cannot be read, ServeError like `Spool.save`."""
        handle, identity = await asyncio.to_thread(self._opened, path)
        if (sha256 := self._known.get(identity)) is not None:
            os.close(handle)
            return Spooled(self._spool.new_path(), sha256, identity.bytes, partial(self._bring, path, sha256))
        settled = self._clock() - max(identity.written_ns, identity.changed_ns) > SETTLED_NS
        spooled = await self._spool.save(_read(handle), self._most)
        if settled:
            self._known.put(identity, spooled.sha256)
        return spooled

    def _opened(self, path: str) -> tuple[int, Identity]:
        handle = open_below(path, self._roots)
        return handle, Identity.of(handle)

    async def _bring(self, path: str, sha256: str, to: Path) -> None:
        """A file that is known, now that its frames are wanted."""
        try:
            handle, _ = await asyncio.to_thread(self._opened, path)
        except OSError:
            raise _changed() from None
        with await self._spool.save(_read(handle), self._most) as spooled:
            if spooled.sha256 != sha256:
                raise _changed()
            spooled.path.rename(to)


async def _read(handle: int) -> AsyncIterator[bytes]:
    with os.fdopen(handle, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield chunk


def _changed() -> ServeError:
    message = "the video file was changed while it was asked about. Ask again."
    return ServeError(503, "overloaded_error", message, param="video_url", code="video_changed", retry_after=1)


def open_below(path: str, roots: Sequence[str]) -> int:
    """A descriptor of a regular file. Links that stay below the roots are followed.

    Raises PermissionError for what lies outside, whether it is there or not; OSError for a file that cannot be read.
    """
    resolved = Path(os.path.realpath(path))
    for root in map(os.path.realpath, roots):
        if resolved.is_relative_to(root) and (names := resolved.relative_to(root).parts):
            return _regular(_open_beneath(root, names))
    raise PermissionError("outside of the allowed folders")


def _open_beneath(root: str, names: Sequence[str]) -> int:
    """Opens one part of the path after the other: the path has no links any more, so one that appears now is refused."""
    folder = os.open(root, FOLDER_FLAGS)
    try:
        for name in names[:-1]:
            inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(names[-1], FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _regular(handle: int) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError("not a regular file")
