"""NExT-QA, multiple choice: https://github.com/doc-doc/NExT-QA (annotations MIT; the videos are VidOR's, under its terms).

Format: `dataset/nextqa/{train,val,test}.csv` of that repository, with `video` (digits, kept as text), `question`,
`answer` (0..4), `qid` (a number that is unique only within its video), `type`, `a0` ... `a4`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cluenet.contracts import Dataset
from cluenet.errors import DataError
from cluenet.records import Example, Quarantined, VideoRef
from cluenet.registry import register
from cluenet_components._files import existing_file, existing_folder, read_text, reading, source_of
from cluenet_components.datasets._rows import BadRowError

OPTIONS = ("a0", "a1", "a2", "a3", "a4")
COLUMNS = ("video", "question", "answer", "qid", "type", *OPTIONS)
TYPES = ("CW", "CH", "TN", "TC", "TP", "DL", "DO", "DC")
"""Causal why/how, temporal next/current/previous, descriptive location/other/counting."""

MAP_NAME = "map_vid_vidorID.json"
SUFFIXES = (".mp4", ".mkv", ".avi", ".webm")


@register.dataset("nextqa")
class NextQaDataset(Dataset):
    """NExT-QA multiple choice: five options per question; causal, temporal and descriptive types.

    Ids are `<video>_<qid>`, the key of the official result files. A video is looked for as
    `<videos>/<vidor folder>/<id>` (the raw archive, through the repository's map_vid_vidorID.json) and as
    `<videos>/<id>` (flat copies), with .mp4, .mkv, .avi or .webm, or as a folder of frames. One that is nowhere keeps
    the path it should have, and is counted as missing when it is opened.

    Bad rows are quarantined: malformed, answer_outside_options, bad_options, unknown_type, no_fps.
    """

    class Config(Dataset.Config):
        split: Literal["train", "val", "validation", "test"] = Field(
            "train", description="Which split to use; validation is another word for val."
        )
        folder: str = Field(..., min_length=1, description="Folder with train.csv, val.csv and test.csv.")
        videos: str = Field(..., min_length=1, description="Folder of the videos, in VidOR's subfolders or flat.")
        map_file: str | None = Field(
            None, min_length=1, description=f"Video id to VidOR path; null: {MAP_NAME} of either folder, if there."
        )
        fps: float | None = Field(None, gt=0, description="Frames per second of videos kept as folders of frames.")

    config: Config

    def rows(self) -> Iterator[Example | Quarantined]:
        file, places = self._file(), self._places()
        videos: dict[str, VideoRef] = {}
        seen: dict[str, int] = {}
        for line, row in _csv_rows(file):
            key = _key(row) or f"{file.stem}-{line}"
            if key in seen:
                raise DataError(f"{file}: lines {seen[key]} and {line} are both {key} (video_qid). Remove one of them.")
            seen[key] = line
            try:
                yield self._example(key, row, places, videos)
            except BadRowError as bad:
                yield Quarantined(key, self.name, str(file), bad.reason, f"line {line}: {bad.detail}")
        if not seen:
            raise DataError(f"{file}: empty dataset: a header and no rows. Download the file again.")

    def sources(self) -> list[str]:
        map_file = self._map_file()
        return [source_of(self._file()), *([source_of(map_file)] if map_file else [])]

    def _file(self) -> Path:
        split = {"validation": "val"}.get(self.config.split, self.config.split)
        return existing_file(existing_folder(self.config.folder, "nextqa.folder") / f"{split}.csv", "nextqa.folder")

    def _map_file(self) -> Path | None:
        if self.config.map_file is not None:
            return existing_file(self.config.map_file, "nextqa.map_file")
        beside = [Path(folder).expanduser() / MAP_NAME for folder in (self.config.folder, self.config.videos)]
        return next((path for path in beside if path.is_file()), None)

    def _places(self) -> dict[str, str]:
        """Video id -> path below the videos folder, without suffix; {} where there is no map."""
        map_file = self._map_file()
        if map_file is None:
            return {}
        try:
            places = json.loads(read_text(map_file))
        except ValueError as error:
            raise DataError(f"{map_file}: is not valid JSON: {error}. Download it again.") from error
        if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
            raise DataError(
                f'{map_file}: must be an object like {{"5550001112": "0207/5550001112"}}. Download it again.'
            )
        return places

    def _example(
        self, key: str, row: Mapping[str, str], places: Mapping[str, str], videos: dict[str, VideoRef]
    ) -> Example:
        _check(row)
        video = _cell(row, "video")
        if video not in videos:
            videos[video] = self._video(video, places)
        question = _cell(row, "question")
        return Example(
            id=key,
            dataset=self.name,
            video=videos[video],
            question=question if question.endswith("?") else f"{question}?",
            options=tuple(_cell(row, name) for name in OPTIONS),
            answer=int(_cell(row, "answer")),
            type=_cell(row, "type"),
        )

    def _video(self, video: str, places: Mapping[str, str]) -> VideoRef:
        """The first place that exists, else where the layout on disk would have it."""
        root = existing_folder(self.config.videos, "nextqa.videos")
        stems = [root / places[video]] if video in places else []
        stems.append(root / video)
        for stem in stems:
            for suffix in SUFFIXES:
                if (file := stem.with_name(stem.name + suffix)).is_file():
                    return VideoRef(str(file))
            if stem.is_dir():
                return self._frames(stem)
        expected = next((stem for stem in stems if stem.parent.is_dir()), stems[0])
        return VideoRef(f"{expected}{SUFFIXES[0]}")

    def _frames(self, folder: Path) -> VideoRef:
        if self.config.fps is None:
            raise BadRowError("no_fps", f"{folder} is a folder of frames and nothing says their rate; set nextqa.fps")
        return VideoRef(str(folder), fps=self.config.fps)


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line the row ends on, row). A short row has None in its last columns, a long one a key None."""
    with reading(file), file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        found = reader.fieldnames or ()
        missing = [column for column in COLUMNS if column not in found]
        if missing:
            raise DataError(
                f"{file}: no column {', '.join(missing)}. Wanted: {', '.join(COLUMNS)}. "
                f"Found: {', '.join(found) or 'nothing'}. Take the multiple-choice csv of doc-doc/NExT-QA."
            )
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{file}: line {reader.line_num} is not valid CSV: {error}. Download it again.") from error


def _key(row: Mapping[str, Any]) -> str | None:
    """The official key, or None where the row lacks a part of it."""
    video, qid = ((row[column] or "").strip() for column in ("video", "qid"))
    return f"{video}_{qid}" if video and qid else None


def _cell(row: Mapping[str, str], column: str) -> str:
    return row[column].strip()


def _check(row: Mapping[Any, Any]) -> None:
    """Raises BadRowError with the column, its value and what is allowed."""
    if None in row or None in row.values():
        raise BadRowError("malformed", f"has {'more' if None in row else 'fewer'} cells than the header")
    for column in ("video", "question", "qid"):
        if not _cell(row, column):
            raise BadRowError("malformed", f"{column} is empty")
    if not all(_cell(row, name) for name in OPTIONS):
        raise BadRowError("bad_options", f"an option is empty: {[_cell(row, name) for name in OPTIONS]}")
    if _cell(row, "type") not in TYPES:
        raise BadRowError("unknown_type", f"type {_cell(row, 'type')!r} is none of {', '.join(TYPES)}")
    if _cell(row, "answer") not in ("0", "1", "2", "3", "4"):
        raise BadRowError("answer_outside_options", f"answer {_cell(row, 'answer')!r} is none of 0, 1, 2, 3, 4")
