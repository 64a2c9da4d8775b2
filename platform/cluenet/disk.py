"""Errors that say which disk is full, or which folder cannot be written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluenet.errors import StorageError

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "writing is not allowed",
    errno.EPERM: "writing is not allowed",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turns a full disk, or a folder that cannot be written, into a StorageError about `path`.

    It also finds the cause in chained exceptions, so that a full disk inside a library's own error is still named.
    """
    try:
        yield
    except Exception as error:
        if (cause := _storage_cause(error)) is None:
            raise
        raise StorageError(_storage_message(Path(path), cause)) from error


def _storage_cause(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _CAUSES:
            return error
        error = error.__cause__ or error.__context__
    return None


def _storage_message(path: Path, error: OSError) -> str:
    cause = _CAUSES[error.errno or 0]
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        step = "Free some space, or set `store=` and `runs=` to another disk, and run the same command again to resume."
        return f"{path}: {cause} ({_free(path)}). {step}"
    return f"{path}: {cause}. Change its permissions, or set `store=` and `runs=` to a folder you may write."


def _free(path: Path) -> str:
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.0f} MiB free"
