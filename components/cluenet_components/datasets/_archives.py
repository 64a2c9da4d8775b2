"""Files inside .zip archives: found by the path that unpacking would give them, and extracted once, only those asked for.

What is extracted lies at `<cache>/<archive>-<hash of its table of contents>/<path>`, each file or folder of frames complete
or not there at all; another archive of the same name gets another folder. The checksum (CRC-32) of every file is verified.
"""

from __future__ import annotations

import shutil
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from zipfile import BadZipFile, ZipFile, ZipInfo

from cluenet.errors import DataError
from cluenet.folders import storage_errors
from cluenet.progress import Progress
from cluenet.records import content_hash
from cluenet_components._files import reading
from cluenet_components.datasets._rows import BadRowError


@dataclass(frozen=True)
class _Member:
    """A file in an archive. folder: where unpacking the archive into a folder of its own name puts it, `/star/videos`."""

    archive: Path
    info: ZipInfo
    folder: str
    name: str


def archives_of(folder: Path) -> list[Path]:
    """Those in the folder, and the one beside it with its name: `Charades_v1_480.zip` may stand for `Charades_v1_480/`."""
    beside = folder.parent / f"{folder.name}.zip"
    return sorted(folder.glob("*.zip")) + ([beside] if beside.is_file() else [])


class Archives:
    """The .zip archives of some folders. A context manager, which closes them and ends the line that shows progress.

    Archives are opened when the first file is asked for. cache: where extracted files are kept.
    """

    def __init__(self, folders: Iterable[Path], cache: Path):
        self._folders, self._cache = tuple(folders), cache
        self._stack = ExitStack()
        self._opened: dict[Path, ZipFile] = {}

    def __enter__(self) -> Archives:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def extracted(self, place: str, *, is_folder: bool = False) -> Path | None:
        """The file, or the folder of files, whose path in an archive is `place` or ends with it; None where there is none.

        Raises BadRowError corrupt_archive, DataError for an archive that cannot be opened and for two files of this name that
        differ, StorageError for a full disk.
        """
        members = self._matching(place, is_folder=is_folder)
        if not members or ".." in place.split("/"):  # nothing is written outside of the cache
            return None
        archive = members[0].archive
        target = self._cache / f"{archive.stem}-{self._addresses[archive]}" / place
        if not target.exists():
            with _damage(archive, place):
                self._extract(members, target, is_folder=is_folder)
            self._progress.advance()
        return target

    def _matching(self, place: str, *, is_folder: bool) -> list[_Member]:
        """Of the first folder that has it; any other that has it must hold the same."""
        _, name = _split(place)
        if is_folder:
            found = [one for one in self._by_folder.get(name, ()) if f"{one.folder}/".endswith(f"/{place}/")]
        else:
            found = [one for one in self._by_name.get(name, ()) if f"{one.folder}/{one.name}".endswith(f"/{place}")]
        homes: dict[tuple[Path, str], list[_Member]] = defaultdict(list)
        for one in found:
            homes[one.archive, one.folder].append(one)
        return _of_one_content(place, list(homes.values()))

    def _extract(self, members: Sequence[_Member], target: Path, *, is_folder: bool) -> None:
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        with storage_errors(target):
            (part if is_folder else part.parent).mkdir(parents=True, exist_ok=True)
            try:
                for member in members:
                    self._copy(member, part / member.name if is_folder else part)
                _move(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                part.unlink(missing_ok=True)

    def _copy(self, member: _Member, to: Path) -> None:
        """Reading to the end verifies the checksum."""
        with self._archive(member.archive).open(member.info) as source, to.open("wb") as file:
            shutil.copyfileobj(source, file)

    def _archive(self, path: Path) -> ZipFile:
        if path not in self._opened:
            with reading(path), _unreadable(path):
                self._opened[path] = self._stack.enter_context(ZipFile(path))
        return self._opened[path]

    @cached_property
    def _progress(self) -> Progress:
        return self._stack.enter_context(Progress("Extracting", total=None, unit="files"))

    @cached_property
    def _members(self) -> list[_Member]:
        archives = dict.fromkeys(path for folder in self._folders for path in archives_of(folder))
        return [
            _Member(archive, info, *_split(f"/{archive.stem}/{info.filename}"))
            for archive in archives
            for info in self._archive(archive).infolist()
            if not info.is_dir()
        ]

    @cached_property
    def _addresses(self) -> dict[Path, str]:
        contents: dict[Path, list[tuple[str, int, int]]] = defaultdict(list)
        for one in self._members:
            contents[one.archive].append((one.info.filename, one.info.CRC, one.info.file_size))
        return {archive: content_hash(content, length=8) for archive, content in contents.items()}

    @cached_property
    def _by_name(self) -> dict[str, list[_Member]]:
        table: dict[str, list[_Member]] = defaultdict(list)
        for one in self._members:
            table[one.name].append(one)
        return table

    @cached_property
    def _by_folder(self) -> dict[str, list[_Member]]:
        """By the last name of the folder that a file lies in."""
        table: dict[str, list[_Member]] = defaultdict(list)
        for one in self._members:
            table[_split(one.folder)[1]].append(one)
        return table


def _of_one_content(place: str, homes: Sequence[list[_Member]]) -> list[_Member]:
    contents = {tuple(sorted((one.name, one.info.CRC, one.info.file_size) for one in home)) for home in homes}
    if len(contents) > 1:
        names = " and ".join(f"{home[0].archive}{home[0].folder}" for home in homes[:2])
        raise DataError(f"{place} names two different files: one in {names}. Remove the one that is not meant.")
    return homes[0] if homes else []


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _move(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError:
        if not target.exists():  # otherwise another process came first, with the same content
            raise


@contextmanager
def _unreadable(archive: Path) -> Iterator[None]:
    try:
        yield
    except BadZipFile as error:
        raise DataError(
            f"{archive}: not a whole .zip archive: {error}. Download it again; one in parts (.z01, .z02, ...) must be joined "
            f"first: zip -s 0 {archive.name} --out whole.zip"
        ) from error


@contextmanager
def _damage(archive: Path, place: str) -> Iterator[None]:
    """A damaged file in an archive is a bad row, whatever the library says: wrong checksum, unknown method, password."""
    try:
        yield
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadRowError("corrupt_archive", f"{place} in {archive}: {error}; download the archive again") from error
