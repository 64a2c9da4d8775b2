"""Batches that are answered already, kept as they come, so that an evaluation that was killed answers nothing twice. Ray-free.

    <set folder>/answered/00012.json   {address, result}: one batch; the folder goes when the set's results are written

Batches are a pure function of the set's address, so their numbers name them. A file of another address, or a damaged one, counts
as none.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from cluenet.evaluate.batches import BatchResult
from cluenet.folders import atomic_write_text


@dataclass(frozen=True)
class Kept:
    """Of one test set."""

    folder: Path  # `answered`
    address: str

    def read(self, count: int) -> dict[int, BatchResult]:
        """Results of those of the `count` batches that are there, by number."""
        found = {number: self._result(number) for number in range(count)}
        return {number: result for number, result in found.items() if result is not None}

    def _result(self, number: int) -> BatchResult | None:
        try:
            kept = json.loads(self._path(number).read_text())
            return BatchResult(**kept["result"]) if kept["address"] == self.address else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, number: int, result: BatchResult) -> None:
        """Raises StorageError on a full disk."""
        atomic_write_text(
            self._path(number), json.dumps({"address": self.address, "result": vars(result)}, allow_nan=False)
        )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"
