"""A store that is a URI: finished files in an object store, and on every machine a mirror of those that it needed. Ray-free.

    <mirror>/s3%3A%2F%2Fbucket%2Fstore/prepared/<address>/clips/part-...    is    s3://bucket/store/prepared/...

The folder below `mirror` is the URI, quoted, so that a path says by itself where its file comes from: a worker that gets one,
on whatever machine, finds the file. Of a path that is in no mirror these functions do what `Path` does.

A file of a mirror is in the object store too, always: it is put there first, and takes its place here after that. So a file
that is here needs no question, what is not here is fetched once, and a process that is killed leaves nothing half. This is
right only for files that never change once they are there, which is what a store consists of.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from cluenet import objects
from cluenet.disk import storage_errors

SCHEMES = ("s3", "gs")
LONGEST_NAME = 255
"""Of a folder, in bytes, on usual file systems."""
_QUOTED = re.compile(rf"({'|'.join(SCHEMES)})%3A%2F%2F.+")

_BUILDING = re.compile(r"\..+\.part")
"""Name of a folder in which `folders.building` is at work."""

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------------------ URIs


def is_remote(store: str) -> bool:
    """Whether a `store` without problems is an object store; else it is a path or a `file://` URI."""
    return store.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def problem_of(store: str) -> str | None:
    """What is wrong with a `store` as a URI, without the password that it may hold; None for a good one and for a path."""
    if "://" not in store:
        return None
    scheme = store.partition("://")[0]
    try:
        parts = urlsplit(store)
    except ValueError as error:
        return f"is not a URI: {error}"
    if "@" in parts.netloc and not (scheme == "gs" and parts.username == "anonymous" and parts.password is None):
        return "holds a user name or a key, and recipes are written into run folders. Set AWS_ACCESS_KEY_ID and such instead"
    if scheme == "file":
        return (
            None if parts.path.startswith("/") and not parts.netloc else f"is {store!r}; write file:///an/absolute/path"
        )
    if scheme not in SCHEMES:
        return (
            f"is {store!r}: a path, or a URI with {', '.join(f'{known}://' for known in SCHEMES)} or file:// is wanted"
        )
    if not parts.hostname:
        return f"is {store!r}, which names no bucket: {scheme}://bucket/folder"
    if len(quote(store, safe="")) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} letters when quoted, so that its mirror cannot be named after it"
    return None


def local_folder(store: str, mirror: str) -> Path:
    """Where the files of a `store` without problems are on this machine, absolute: itself, or its mirror."""
    if is_remote(store):
        return Path(mirror).expanduser().absolute() / quote(store.rstrip("/"), safe="")
    return Path(unquote(urlsplit(store).path) if store.startswith("file://") else store).expanduser().absolute()


def absolute(store: str) -> str:
    """A `store` that means the same in every process of the cluster."""
    return store if is_remote(store) else str(local_folder(store, ""))


def shown(path: Path) -> str:
    """For messages about a file or folder that somebody should look at or delete, wherever it is. Asks nobody."""
    found = _place(path)
    return str(path) if found is None else f"{found[1]} in {found[0]} (and its copy {path})"


def _place(path: Path) -> tuple[str, str] | None:
    """The URI and the key of a path in a mirror."""
    for index, part in enumerate(path.parts):
        if _QUOTED.fullmatch(part):
            return unquote(part), "/".join(path.parts[index + 1 :])
    return None


def _remote(path: Path) -> tuple[objects.ObjectStore, str] | None:
    """The object store and the key of a path in a mirror. Raises StorageError."""
    place = _place(path)
    return None if place is None else (objects.opened(place[0]), place[1])


# --------------------------------------------------------------------------------------------------------- reading


def is_there(path: Path) -> bool:
    """Whether the file is here or in the object store. Raises StorageError."""
    if path.is_file() or (found := _remote(path)) is None:
        return path.is_file()
    store, key = found
    return store.has(key)


def bring(path: Path, *, first: bool = False) -> Path:
    """The same path, where the file is now, unless there is none. Processes that want the same file fetch it once.

    first: of its folder, before which nothing else is used. What is here already is then of an earlier try, which another
    machine may have ended with other files, and is removed. Raises StorageError."""
    if path.exists() or (found := _remote(path)) is None or not found[0].has(found[1]):
        return path
    unfinished = path.with_name(f".{path.name}.fetch")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # also waits for another process to end the same
            if not path.exists():
                found[0].get(found[1], file)
                file.flush()
                if first:
                    _remove_earlier(path.parent)
                unfinished.replace(path)
    return path


def _remove_earlier(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith("."):  # those are being written
            file.unlink(missing_ok=True)


def bring_folder(folder: Path) -> Path:
    """The same path, where all files of the folder are now. Raises StorageError."""
    if (found := _remote(folder)) is not None:
        store, key = found
        for name in store.sizes(key, deep=True):
            bring(folder / name.removeprefix(f"{key}/"))
    return folder


def read(path: Path, reader: Callable[[Any], T]) -> T:
    """What `reader` makes of the open file; of one that is not here, only what is read is fetched.

    Raises OSError as `open`, StorageError, and what `reader` raises."""
    if not path.exists() and (found := _remote(path)) is not None:
        return found[0].read(found[1], reader)
    with path.open("rb") as file:
        return reader(file)


def sizes(folder: Path, pattern: str) -> dict[Path, int]:
    """Bytes of the files of a folder whose names fit, in the order of their names. Raises StorageError."""
    if (found := _remote(folder)) is None:
        return {path: path.stat().st_size for path in sorted(folder.glob(pattern))}
    store, key = found
    return {folder / name.removeprefix(f"{key}/"): size for name, size in store.sizes(key, pattern).items()}


# --------------------------------------------------------------------------------------------------------- writing


def put(source: Path, path: Path) -> None:
    """Puts a finished local file into the object store as `path`; nothing for a path in no mirror. Raises StorageError.

    A file of a folder that is being built goes there with its folder (`put_folder`)."""
    if (found := _remote(path)) is not None:
        store, key = found
        if not any(map(_BUILDING.fullmatch, key.split("/")[:-1])):
            store.put(key, source)


def put_folder(source: Path, folder: Path, *, last: str = "") -> None:
    """`put` for every file in `source`, the one called `last` after all others. Raises StorageError."""
    if (found := _remote(folder)) is None:
        return
    store, key = found
    names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
    for name in sorted(names, key=lambda name: name == last):
        store.put(f"{key}/{name}", source / name)


def take_folder(folder: Path) -> None:
    """Moves what another machine put there to this one. Raises StorageError."""
    if (found := _remote(bring_folder(folder))) is not None:
        store, key = found
        for name in store.sizes(key, deep=True):
            store.remove(name)


def remove(path: Path) -> None:
    """Here and in the object store; a file that is not there is no error. Raises StorageError."""
    path.unlink(missing_ok=True)
    if (found := _remote(path)) is not None:
        store, key = found
        store.remove(key)


def require_writable(folder: Path) -> None:
    """Before work whose result could not be kept. Raises StorageError for an object store that refuses writing."""
    if (found := _remote(folder)) is not None:
        found[0].require_writable()
