"""Rows of CSV, JSON Lines and JSON list files, and the one way to say that a row cannot be used."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluenet.errors import DataError
from cluenet_components._files import read_text, reading, text_lines


class BadRowError(Exception):
    """This row cannot be used; `reason` is the short stable word of `Quarantined`."""

    def __init__(self, reason: str, detail: str):
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True)
class Row:
    """One object of a file, or what stands in its place. `number` counts lines, or items of a list, from 1."""

    file: Path
    unit: str  # "line" or "item"
    number: int
    value: Mapping[str, Any]
    problem: str | None = None  # why there is no value, or not a whole one

    @property
    def where(self) -> str:
        return f"{self.unit} {self.number}"


def csv_rows(file: Path, columns: Sequence[str], advice: str) -> Iterator[Row]:
    """Every row in order, numbered by the line it ends on; one of another length than the header carries its `problem`.

    advice: where to get the right file. Raises DataError when a column of `columns` is missing or the file is not CSV.
    """
    with reading(file), file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        _check_columns(file, columns, reader.fieldnames or (), advice)
        try:
            for value in reader:
                yield Row(file, "line", reader.line_num, value, _length_problem(value))
        except csv.Error as error:
            raise DataError(f"{file}: line {reader.line_num} is not valid CSV: {error}. {advice}") from error


def _length_problem(value: Mapping[str | None, Any]) -> str | None:
    """By what DictReader fills in: a key None for cells too many, values None for cells too few."""
    if None in value:
        return "has more cells than the header"
    return "has fewer cells than the header" if None in value.values() else None


def _check_columns(file: Path, wanted: Sequence[str], found: Sequence[str], advice: str) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise DataError(
            f"{file}: no column {', '.join(missing)}. Wanted: {', '.join(wanted)}. "
            f"Found: {', '.join(found) or 'nothing'}. {advice}"
        )


def json_rows(file: Path) -> Iterator[Row]:
    """Every row in order; a malformed one carries its `problem`.

    Told apart by content: a file that starts with "[" is a JSON list, any other has one object per line.
    Raises DataError when the file is empty, holds not one object, or is a list that is not valid JSON.
    """
    rows = _list_rows(file) if first_character(file) == "[" else _line_rows(file)
    usable, problem = 0, None
    for row in rows:
        usable += row.problem is None
        problem = problem or row.problem
        yield row
    if not usable:
        cause = f"not one row is a JSON object (the first: {problem})" if problem else "empty dataset"
        raise DataError(f"{file}: {cause}. Write one JSON object per line, or a JSON list of objects.")


def first_character(file: Path) -> str:
    """The first one that is no space: it tells formats apart. "" for an empty file. Raises DataError."""
    with reading(file), file.open(encoding="utf-8-sig") as text:
        for line in text:
            if line.strip():
                return line.strip()[0]
    return ""


def _line_rows(file: Path) -> Iterator[Row]:
    for number, line in text_lines(file):
        try:
            yield _row(file, "line", number, json.loads(line))
        except (ValueError, RecursionError) as error:
            yield Row(file, "line", number, {}, f"not valid JSON: {error}")


def _list_rows(file: Path) -> Iterator[Row]:
    try:
        items = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: starts as a JSON list but is not valid JSON: {error}. Repair or re-export it."
        ) from error
    for number, item in enumerate(items, start=1):
        yield _row(file, "item", number, item)


def _row(file: Path, unit: str, number: int, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(file, unit, number, value)
    return Row(file, unit, number, {}, f"a JSON object is wanted, not {value!r:.80}")


def claim(example_id: str, row: Row, seen: dict[str, str], fields: str) -> None:
    """Notes that the row has this id. fields: those that make it, for the message.

    Raises DataError naming both rows where an earlier one of `seen` has it."""
    if example_id in seen:
        raise DataError(
            f"{row.file}: {seen[example_id]} and {row.where} have the same {fields}: {example_id}. Remove one of them."
        )
    seen[example_id] = row.where


def number_field(row: Mapping[str, Any], name: str) -> float | None:
    """A finite number >= 0, or None where the row has no such field. Raises BadRowError malformed."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise BadRowError("malformed", f"{name} is {value!r:.80}, must be a number >= 0")
    return float(value)


def rate_field(row: Mapping[str, Any], name: str) -> float | None:
    """A number of frames per second, or None where the row has no such field. Raises BadRowError malformed."""
    rate = number_field(row, name)
    if rate == 0:
        raise BadRowError("malformed", f"{name} is {row[name]!r}, must be a number > 0")
    return rate
