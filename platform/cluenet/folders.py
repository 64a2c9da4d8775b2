"""Folders that are either finished or not there: atomic writes, a manifest that is written last, and errors that say
which disk is full.

A reader never sees half a file (temporary file, then rename) and never half a folder (`finished` looks for the manifest).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cluenet
from cluenet.errors import StorageError

MANIFEST = "manifest.json"

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


def atomic_write_text(path: str | Path, text: str) -> Path:
    """Write `text` so that `path` holds the old content or all of the new one, never a part. Makes parent folders.

    Raises StorageError when the disk is full or the folder cannot be written.
    """
    return atomic_write_bytes(path, text.encode())


def atomic_write_bytes(path: str | Path, content: bytes) -> Path:
    """`atomic_write_text` for bytes."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def atomic_write_json(path: str | Path, value: Any) -> Path:
    """`atomic_write_text` for JSON: keys in their own order, indented. Raises ValueError on NaN, which is not JSON."""
    return atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def finished(folder: str | Path) -> bool:
    """Whether the step that fills `folder` came to its end: the manifest is what it writes last."""
    return (Path(folder) / MANIFEST).is_file()


def write_manifest(folder: str | Path, manifest: Mapping[str, Any]) -> Path:
    """Declare `folder` finished. Call it last."""
    return atomic_write_json(Path(folder) / MANIFEST, manifest)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What `write_manifest` wrote. Raises StorageError when the folder is missing, unfinished or damaged."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        state = "unfinished (it has no manifest.json)" if Path(folder).is_dir() else "missing"
        raise StorageError(f"{folder}: the folder is {state}. Run the command that makes it again.") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read: {error}. Delete the folder and make it again.") from None
    if not isinstance(manifest, dict):
        raise StorageError(f"{path}: not a manifest: it holds a {type(manifest).__name__}. Delete the folder.")
    return manifest


def versions(*packages: str) -> dict[str, str]:
    """For manifests: of cluenet, and of these packages. cluenet itself may run from a checkout that is not installed."""
    return {"cluenet": cluenet.__version__, **{name: version(name) for name in packages}}


@contextmanager
def building(folder: str | Path) -> Iterator[Path]:
    """An empty folder beside `folder` to fill, moved to `folder` when the block ends well, deleted when it does not.

    For steps that do not resume. Two processes that build the same address do not disturb each other: the first one to
    end wins and the other's work is thrown away. Raises StorageError like the writers here.
    """
    folder = Path(folder)
    with storage_errors(folder):
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
        part.mkdir(parents=True)
        try:
            yield part
            _move(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _move(part: Path, folder: Path) -> None:
    if finished(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)  # left over from a run that was killed
    try:
        part.rename(folder)
    except OSError:
        if not finished(folder):  # otherwise another process came first, with the same content
            raise
