"""A plug-in that makes the disk full, in every process that loads it, for files whose path holds MARK."""

from __future__ import annotations

import errno
import os

MARK = "full-disk"
_fsync = os.fsync


def fsync(fd: int) -> None:
    path = os.readlink(f"/proc/self/fd/{fd}")
    if MARK in path and "part-00001" in path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    _fsync(fd)


os.fsync = fsync
