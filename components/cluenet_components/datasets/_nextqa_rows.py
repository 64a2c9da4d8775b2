"""Rows of NExT-QA and of what was made from it, as one mapping of texts by the official columns, whatever their format.

Formats, told apart by content: the csv of doc-doc/NExT-QA and doc-doc/NExT-GQA, and the JSON list that SeViLA's
"Data Preprocess" notebook (Yui010206/SeViLA) makes of the first. The notebook moves type and video into `qid`, puts a "."
after every option and a "?" after the question: all of that is undone, so that both formats give the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluenet_components.datasets._rows import BadRowError, Row, csv_rows, first_character, json_rows

OPTIONS = ("a0", "a1", "a2", "a3", "a4")
COLUMNS = ("video", "question", "answer", "qid", "type", *OPTIONS)
TYPES = ("CW", "CH", "TN", "TC", "TP", "DL", "DO", "DC")
"""Causal why/how, temporal next/current/previous, descriptive location/other/counting."""

NO_VALUES = dict.fromkeys(COLUMNS, "")
PLACE = "place"
"""Column of our own: path below the videos folder, where the row itself says it."""


def is_sevila(file: Path) -> bool:
    """Whether it is JSON. Raises DataError."""
    return first_character(file) in ("[", "{")


def sevila_rows(file: Path) -> Iterator[Row]:
    """Every row, its values as stripped texts by the official columns, and PLACE. Raises DataError."""
    return map(_from_sevila, json_rows(file))


def official_rows(file: Path, advice: str, video: str = "video") -> Iterator[Row]:
    """Every row, its values as stripped texts. video: the file's name of that column. advice: where to get the right
    file. Raises DataError."""
    named = {column: video if column == "video" else column for column in COLUMNS}
    for row in csv_rows(file, tuple(named.values()), advice):
        yield replace(row, value={column: _text(row.value[name]) for column, name in named.items()})


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _from_sevila(row: Row) -> Row:
    if row.problem:
        return replace(row, value=NO_VALUES)
    value = {column: _text(row.value.get(column)) for column in (*COLUMNS, PLACE)}
    value[PLACE] = value["video"]
    value |= {option: value[option].removesuffix(".").rstrip() for option in OPTIONS}
    parts = value["qid"].split("_")
    if len(parts) != 3 or Path(value[PLACE]).name != parts[1]:
        problem = f"qid {value['qid']!r} is not <type>_<video>_<number> of the video {value['video']!r}"
        return replace(row, value=NO_VALUES, problem=problem)
    value["type"], value["video"], value["qid"] = parts
    return replace(row, value=value)


def key_of(row: Row) -> str:
    """The official key `<video>_<qid>`; file and row where one of the two is missing."""
    video, qid = row.value["video"], row.value["qid"]
    return f"{video}_{qid}" if video and qid else f"{row.file.stem}-{row.number}"


def type_of(row: Row) -> str | None:
    """None where it is none of the official ones."""
    kind: str = row.value["type"]
    return kind if kind in TYPES else None


def question_of(value: Mapping[str, str]) -> str:
    question = value["question"].removesuffix("?").rstrip()
    return f"{question}?"


def options_of(value: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(value[name] for name in OPTIONS)


def check(row: Row) -> None:
    """All but the answer. Raises BadRowError with the column, its value and what is allowed."""
    if row.problem:
        raise BadRowError("malformed", row.problem)
    for column in ("video", "question", "qid"):
        if not row.value[column]:
            raise BadRowError("malformed", f"{column} is empty")
    if not all(options_of(row.value)):
        raise BadRowError("bad_options", f"an option is empty: {list(options_of(row.value))}")
    if type_of(row) is None:
        raise BadRowError("unknown_type", f"type {row.value['type']!r} is none of {', '.join(TYPES)}")
