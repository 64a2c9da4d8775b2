"""Folders that are either finished or not there: atomic writes, and a manifest that is written last.

A reader never sees half a file (temporary file, then rename) and never half a folder (`finished` looks for the manifest).
What lies in the mirror of a store that is a URI goes to the object store with it, and comes from there (`cluenet.storage`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cluenet
from cluenet import storage
from cluenet.disk import storage_errors as storage_errors
from cluenet.errors import StorageError

MANIFEST = "manifest.json"


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
            storage.put(part, path)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def atomic_write_json(path: str | Path, value: Any) -> Path:
    """`atomic_write_text` for JSON: keys in their own order, indented. Raises ValueError on NaN, which is not JSON."""
    return atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def finished(folder: str | Path) -> bool:
    """Whether the step that fills `folder` came to its end: the manifest is what it writes last."""
    return storage.is_there(Path(folder) / MANIFEST)


def write_manifest(folder: str | Path, manifest: Mapping[str, Any]) -> Path:
    """Declare `folder` finished. Call it last."""
    return atomic_write_json(Path(folder) / MANIFEST, manifest)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What `write_manifest` wrote. Raises StorageError when the folder is missing, unfinished or damaged."""
    path = storage.bring(Path(folder) / MANIFEST, first=True)
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        state = "unfinished (it has no manifest.json)" if Path(folder).is_dir() else "missing"
        raise StorageError(
            f"{storage.shown(Path(folder))}: the folder is {state}. Run the command that makes it again."
        ) from None
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{storage.shown(path)}: cannot be read: {error}. Delete the folder and make it again."
        ) from None
    if not isinstance(manifest, dict):
        raise StorageError(
            f"{storage.shown(path)}: not a manifest: it holds a {type(manifest).__name__}. Delete the folder."
        )
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
    storage.require_writable(folder)
    with storage_errors(folder):
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
        part.mkdir(parents=True)
        try:
            yield part
            _move(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def taking_turns(folder: str | Path) -> Iterator[None]:
    """Processes of one machine that want to fill `folder` do so one after the other, and so the second one may find it finished.
    It saves work and no more: where there are no locks nobody waits. `.<name>.lock` is left beside the folder."""
    folder, lock = Path(folder), None
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _move(part: Path, folder: Path) -> None:
    if finished(folder):
        return
    storage.put_folder(part, folder, last=MANIFEST)
    shutil.rmtree(folder, ignore_errors=True)  # left over from a run that was killed
    try:
        part.rename(folder)
    except OSError:
        if not finished(folder):  # otherwise another process came first, with the same content
            raise
