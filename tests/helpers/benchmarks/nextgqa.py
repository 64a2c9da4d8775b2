"""A miniature of NExT-GQA in the official format: csv files with answers as text, span files, VidOR's videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.benchmarks.nextqa import FPS, FRAMES, HEADER, VIDEOS, make_vidor_videos, rows_of, write_csv

ANSWER, QID, TYPE, FIRST_OPTION = (HEADER.index(column) for column in ("answer", "qid", "type", "a0"))
SPANS = [[0.5, 1.5], [2.0, 2.5]]


def make_nextgqa(folder: Path) -> Path:
    """In every split 5 causal and temporal questions about each of 2 videos and about one that is missing; train has
    descriptive ones too."""
    make_vidor_videos(folder)
    header = ("video_id", *HEADER[1:])
    for split in VIDEOS:
        rows = [as_text(row) for row in rows_of(split)]
        kept = rows if split == "train" else [row for row in rows if not row[TYPE].startswith("D")]
        write_csv(folder / f"{split}.csv", header, kept)
        if split != "train":
            (folder / f"gsub_{split}.json").write_text(json.dumps(spans_of(kept)))
    return folder


def as_text(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row with its answer as the option's text."""
    return *row[:ANSWER], row[FIRST_OPTION + row[ANSWER]], *row[ANSWER + 1 :]


def spans_of(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    videos = dict.fromkeys(row[0] for row in rows)
    about = {"duration": FRAMES // FPS, "fps": FPS}
    return {video: {**about, "location": {str(row[QID]): SPANS for row in rows if row[0] == video}} for video in videos}
