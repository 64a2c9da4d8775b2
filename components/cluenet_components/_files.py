"""Files that components read: found or explained, hashed, and read as text with every failure a `DataError`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from cluenet.errors import DataError, MissingDataError
from cluenet.records import content_hash

NAMES_SHOWN = 10


def existing_file(path: str | Path, setting: str) -> Path:
    """The file, `~` expanded. Raises DataError naming the `setting` and what lies beside where it should be; where nothing is,
    a MissingDataError."""
    found = Path(path).expanduser()
    if not found.exists():
        raise MissingDataError(f"{setting}: no such file: {found}. {_beside(found)}")
    if not found.is_file():
        raise DataError(f"{setting}: {found} is a folder, a file is wanted. {_listing(found)}")
    return found


def existing_folder(path: str | Path, setting: str) -> Path:
    """The folder, `~` expanded. Raises DataError naming the `setting` and what lies beside where it should be; where nothing
    is, a MissingDataError."""
    found = Path(path).expanduser()
    if not found.exists():
        raise MissingDataError(f"{setting}: no such folder: {found}. {_beside(found)}")
    if not found.is_dir():
        raise DataError(
            f"{setting}: {found} is a file, a folder is wanted. Give the folder it lies in: {found.parent}."
        )
    return found


def _beside(path: Path) -> str:
    """What the nearest folder that does exist holds, names like the missing one first."""
    path = path.absolute()
    while not path.parent.is_dir():
        path = path.parent
    near = get_close_matches(path.name, _names(path.parent), n=1, cutoff=0.6)
    return (f"Did you mean {near[0]!r}? " if near else "") + _listing(path.parent)


def _listing(folder: Path) -> str:
    names = _names(folder)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{folder} holds: {', '.join(names[:NAMES_SHOWN]) or 'nothing'}{more}."


def _names(folder: Path) -> list[str]:
    with reading(folder):
        return sorted(entry.name for entry in folder.iterdir())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the system says about `path` into a DataError with the next step."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}: {error.reason}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}. Check its permissions and disk."
        ) from error


def read_text(path: Path) -> str:
    """The whole file as UTF-8 text, a byte order mark left out. Raises DataError."""
    with reading(path):
        return path.read_text(encoding="utf-8-sig")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of every line that is not blank. Raises DataError."""
    with reading(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip("\n")


def checkpoint_hash(folder: Path) -> str:
    """Of a folder in Hugging Face layout: JSON files by content, weight files by size; never 16 GB read to name them.
    Raises DataError."""
    texts = [(file.name, read_text(file)) for file in sorted(folder.glob("*.json"))]
    sizes = [(file.name, file.stat().st_size) for file in sorted(folder.glob("*.safetensors"))]
    return content_hash(texts, sizes)


def source_of(path: Path) -> str:
    """`<file name> sha256:<hex>`: one entry of a component's `sources()`. Raises DataError."""
    with reading(path), path.open("rb") as file:
        return f"{path.name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
