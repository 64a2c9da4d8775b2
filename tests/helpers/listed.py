"""A plug-in for tests of `prepare`: a dataset that is a list of rows in a file, and a reader that logs every opening."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from pydantic import Field

from cluenet.contracts import Dataset, Reader, VideoFile
from cluenet.errors import DataError
from cluenet.records import Example, Quarantined, content_hash
from cluenet.registry import ComponentConfig, register


@register.dataset("listed")
class ListedRows(Dataset):
    """Rows in a JSON file as `write_rows` makes it."""

    class Config(Dataset.Config):
        file: str = Field(..., description="JSON file of rows.")

    config: Config

    def rows(self) -> Iterator[Example | Quarantined]:
        for row in json.loads(self._text()):
            yield Example.from_row(row) if "question" in row else Quarantined(**row)

    def sources(self) -> list[str]:
        return [content_hash(self._text())]

    def _text(self) -> str:
        try:
            return Path(self.config.file).read_text()
        except OSError as error:
            raise DataError(f"{self.config.file}: {error}") from None


def write_rows(path: Path, rows: Sequence[Example | Quarantined]) -> Path:
    path.write_text(json.dumps([row.to_row() for row in rows]))
    return path


@register.reader("logged")
class LoggedReader(Reader):
    """`pyav`, each opening of which is a line `pid path` of a file."""

    class Config(ComponentConfig):
        log: str = Field(..., description="File to append to.")
        delay_seconds: float = Field(0.0, ge=0, description="Sleep before each opening.")

    config: Config

    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        time.sleep(self.config.delay_seconds)
        with open(self.config.log, "a") as log:  # a short line is appended in one piece
            log.write(f"{os.getpid()} {path}\n")
        return register.reader.parse("pyav").build().open(path, fps=fps)


def openings(log: Path, *, not_by: Set[str] = frozenset()) -> list[str]:
    """The paths opened so far, in order, without those opened by some processes."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [path for process, path in (line.split(" ", 1) for line in lines) if process not in not_by]


def openers(log: Path) -> set[str]:
    """The processes that opened videos so far."""
    return {line.split(" ", 1)[0] for line in log.read_text().splitlines()}
