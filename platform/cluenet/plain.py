"""What a model states as plain JSON values: the same wherever it is written (samples.jsonl, `cluenet ask --json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from cluenet.records import PredictedClue

DIGITS = 6


def clue_row(clue: PredictedClue, offset_seconds: float) -> dict[str, Any]:
    """A stated clue without its attention; times moved from the clip's clock to the file's by `offset_seconds`."""
    start, end = (None if t is None else t + offset_seconds for t in (clue.start_seconds, clue.end_seconds))
    box = None if clue.box is None else asdict(replace(clue.box, seconds=clue.box.seconds + offset_seconds))
    return {
        "text": clue.text, "words": list(clue.words), "start_seconds": start, "end_seconds": end, "box": box,
        "gate": clue.gate, "kept": clue.kept,
    }  # fmt: skip


def rounded(value: Any) -> Any:
    """Every float in a JSON-like value rounded to DIGITS digits, -0.0 as 0.0."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
