"""The rows of a dataset: read once, kept on disk until their clips are ready, so that memory does not grow with them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

from cluenet.contracts import ClueSource, Dataset
from cluenet.errors import DataError
from cluenet.folders import storage_errors
from cluenet.records import Example, Quarantined

Row = Example | Quarantined
DUPLICATES_SHOWN = 5


class Rows:
    """Rows in their order, on disk. A context manager: its nameless temporary file is gone when the block ends."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._count = 0
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `__exit__`)

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, row: Row) -> None:
        """Raises StorageError when the disk is full."""
        with storage_errors(self._folder):
            pickle.dump(row, self._file, pickle.HIGHEST_PROTOCOL)
        self._count += 1

    def __iter__(self) -> Iterator[Row]:
        with storage_errors(self._folder):
            self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)


def labelled_rows(dataset: Dataset, clue_source: ClueSource) -> Iterator[Row]:
    """The first `max_samples` rows, bad ones included, with the clue source's clues. Raises DataError: ids must be unique."""
    seen: set[str] = set()
    duplicates: list[str] = []
    for row in islice(dataset.rows(), dataset.config.max_samples):  # type: ignore[attr-defined]
        if isinstance(row, Example):
            if row.id in seen:
                duplicates.append(row.id)
            seen.add(row.id)
            row = clue_source.attach(row)
        yield row
    if duplicates:
        raise DataError(_duplicates(dataset, duplicates))


def _duplicates(dataset: Dataset, ids: list[str]) -> str:
    shown = ", ".join(map(repr, dict.fromkeys(ids[:DUPLICATES_SHOWN])))
    more = f" and {len(ids) - DUPLICATES_SHOWN} more" if len(ids) > DUPLICATES_SHOWN else ""
    return (
        f"dataset {dataset.name!r}, split {dataset.config.split!r}: {len(ids)} questions have the id of an earlier one: "  # type: ignore[attr-defined]
        f"{shown}{more}. Give every question its own id."
    )
