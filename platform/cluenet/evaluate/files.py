"""Files of an evaluated test set, read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from cluenet import storage
from cluenet.errors import DataError
from cluenet.evaluate.samples import Sample

RESULTS, SAMPLES, QUARANTINE, OFFICIAL = "results.json", "samples.jsonl", "quarantine.jsonl", "official"

T = TypeVar("T")


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of one evaluated test set. Raises DataError when it cannot be read."""
    return _read(folder / RESULTS, json.loads)


def read_samples(folder: Path) -> list[Sample]:
    """samples.jsonl of one evaluated test set. Raises DataError when it cannot be read."""
    return _read(folder / SAMPLES, _parsed_lines)


def read_quarantine(folder: Path) -> list[dict[str, Any]]:
    """quarantine.jsonl of a prepared set. Raises DataError when it is damaged, StorageError."""
    return _read(storage.bring(folder / QUARANTINE), _parsed_lines)


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows)


def _parsed_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]  # other line ends may stand in a string


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Delete {path.parent} and evaluate again.") from error
