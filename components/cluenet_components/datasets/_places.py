"""Where the files of a dataset are: on disk, or still inside the .zip archives in which they were downloaded."""

from __future__ import annotations

import filecmp
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluenet.contracts import Dataset
from cluenet.errors import DataError
from cluenet.records import Example, Quarantined
from cluenet.steps import setting
from cluenet_components._files import existing_folder, reading
from cluenet_components.datasets._archives import Archives, archives_of
from cluenet_components.datasets._rows import BadRowError


class Places:
    """Files below a folder, on disk or, where archives are given, in them. Paths are told from that folder.

    One name for two different files is an error, wherever they are: nothing says which of them a question is about.
    """

    def __init__(self, root: Path, archives: Archives | None = None):
        self.root, self._archives = root, archives

    @property
    def on_disk(self) -> Places:
        return Places(self.root)

    def at(self, root: Path) -> Places:
        """Another folder, the same archives."""
        return Places(root, self._archives)

    def file(self, *places: str) -> Path | None:
        """What lies at one of these places, which are all for the same file; None where there is none.

        Raises BadRowError corrupt_archive; DataError for two different files and for an archive that cannot be opened;
        StorageError.
        """
        there = [path for place in places if (path := self.root / place).is_file()]
        return _same(there) or self._extracted(places, is_folder=False)

    def folder(self, *places: str) -> Path | None:
        """The same for a folder of frames; of those on disk the first one."""
        there = (path for place in places if (path := self.root / place).is_dir())
        return next(there, None) or self._extracted(places, is_folder=True)

    def _extracted(self, places: Sequence[str], *, is_folder: bool) -> Path | None:
        if self._archives is None:
            return None
        found = (self._archives.extracted(place, is_folder=is_folder) for place in places)
        return next((path for path in found if path is not None), None)


def _same(paths: Sequence[Path]) -> Path | None:
    """The first one. Raises DataError where another one has other content."""
    for other in paths[1:]:
        with reading(other):
            is_same = other.samefile(paths[0]) or filecmp.cmp(paths[0], other, shallow=False)
        if not is_same:
            raise DataError(
                f"{paths[0]} and {other}: one name for two different files. Remove the one that is not meant."
            )
    return paths[0] if paths else None


class ZippedDataset(Dataset):
    """A dataset whose videos are read from .zip archives too: those in their folder, or one beside it with its name."""

    class Config(Dataset.Config):
        extract_to: str = setting(
            "~/.cache/cluenet/extracted",
            "none",
            min_length=1,
            description="Where files from .zip archives are kept; on a cluster, a folder that every node sees.",
        )

    config: Config

    def rows(self) -> Iterator[Example | Quarantined]:
        """Raises DataError where the videos are neither in a folder nor in an archive."""
        root = existing_places(self._videos_root, f"{self.name}.{self._videos_setting}")
        with self._archives(root, *self._more_roots) as archives:
            yield from self._rows_with(Places(root, archives))

    def described(self) -> Iterator[Example | Quarantined]:
        """Without looking into archives of videos."""
        return self._rows_with(Places(self._videos_root))

    @property
    def _videos_setting(self) -> str:
        """The setting that `_videos_root` comes from, for messages."""
        return "videos"

    @property
    @abstractmethod
    def _videos_root(self) -> Path: ...

    @property
    def _more_roots(self) -> Sequence[Path]:
        """Other folders whose archives are looked into."""
        return ()

    @abstractmethod
    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        """All rows."""

    def _archives(self, *roots: Path) -> Archives:
        return Archives(dict.fromkeys(roots), Path(self.config.extract_to).expanduser())

    def _unzipped(self, root: Path, *names: str) -> list[Path | None]:
        """Annotation files copied out of the archives of `root`; None for those that are in none. Raises DataError."""
        try:
            with self._archives(root) as archives:
                return [archives.extracted(name) for name in names]
        except BadRowError as bad:
            raise DataError(bad.detail) from None


def existing_places(folder: Path, setting_name: str) -> Path:
    """The folder, which need not be there where an archive stands for it. Raises DataError."""
    return folder if not folder.exists() and archives_of(folder) else existing_folder(folder, setting_name)
