"""Files below allowed folders, opened so that neither `..` nor a symbolic link, nor one exchanged meanwhile, leads outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe without a writer would block


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
