"""STAR, situated reasoning: https://github.com/csbobby/STAR_Benchmark (Apache-2.0; the videos are Charades', not commercial).

Format: `STAR_{train,val,test}.json`, lists of {"question_id", "question", "video_id", "start", "end", "answer", "choices",
"situations", ...}; see `_star_clues` for situations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder, source_of
from cluenet_components.datasets._options import index_of_text
from cluenet_components.datasets._originals import charades
from cluenet_components.datasets._places import Places, ZippedDataset
from cluenet_components.datasets._rows import BadRowError, Row, claim, json_rows, number_field
from cluenet_components.datasets._star_classes import OBJECTS, OTHER_FILES, Classes, class_files, read_classes
from cluenet_components.datasets._star_clues import clues_of
from cluenet_components.datasets._star_metrics import TYPES, accuracies, submission
from cluenet_components.datasets._star_videos import StarVideo, StarVideos

CLASS_FOLDERS = ("STAR_classes", "classes", "annotations/STAR_classes", ".")
RATES = ("video_fps", "video_fps.json")


@register.dataset("star")
class StarDataset(ZippedDataset):
    """STAR: interaction, sequence, prediction and feasibility questions about clips of Charades videos.

    The clip is [start, end] of the video `<videos>/<video_id>.mp4`, a file or a folder of dumped frames; nothing after its
    end is ever read, for there the answer to a prediction can be seen. The answer is found among the choices by its text;
    their numbers are not used. Situation graphs come as clues with times and boxes, but for frames outside of the clip.

    The test split has no answers: its result file is what the leaderboard takes. Bad rows are quarantined: malformed,
    unknown_type, bad_options, no_answer, answer_outside_options, ambiguous_answer, bad_bounds, no_fps, bad_fps, bad_clues,
    corrupt_archive.
    """

    class Config(ZippedDataset.Config):
        split: Literal["train", "val", "validation", "test"] = Field(
            "train", description="Which split to use; validation is another word for val. test has no answers."
        )
        folder: str = Field(
            ..., min_length=1, description="Folder with STAR_train.json, STAR_val.json, STAR_test.json."
        )
        videos: str = Field(
            ...,
            min_length=1,
            description="Folder of <video_id>.mp4: Charades_v1_480, or one folder of frames for each.",
        )
        clues: bool = Field(True, description="Whether situation graphs come as clues; needs the class files.")
        classes: str | None = Field(
            None,
            min_length=1,
            description="Folder of object_classes.txt and so on; null: STAR_classes in the folder above.",
        )
        fps_file: str | None = Field(
            None,
            min_length=1,
            description="STAR's video_fps, a pickle or JSON; null: beside the class files, if there.",
        )
        fps: float | None = Field(
            None, gt=0, description="Frames per second of folders of frames that the file above does not name."
        )

    config: Config

    @classmethod
    def source_id(cls, video: str) -> str | None:
        return charades(video)

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return accuracies(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return {"submission.json": submission(verdicts)}

    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        films = StarVideos(videos, self._rates, self.config.fps)
        seen: dict[str, str] = {}
        for row in json_rows(self._file):
            claim(_id(row), row, seen, "question_id")
            try:
                yield self._example(row, films)
            except BadRowError as bad:
                detail = f"{row.where}: {bad.detail}"
                yield Quarantined(_id(row), self.name, str(row.file), bad.reason, detail, type=_type(row))

    def sources(self) -> list[str]:
        named = [self._file, *([self._rates] if self._rates else [])]
        return [source_of(file) for file in (*named, *(class_files(self._classes_folder) if self.config.clues else []))]

    # ------------------------------------------------------------------------------------------------ where things are

    @property
    def _videos_root(self) -> Path:
        return Path(self.config.videos).expanduser()

    @cached_property
    def _file(self) -> Path:
        split = {"validation": "val"}.get(self.config.split, self.config.split)
        return existing_file(existing_folder(self.config.folder, "star.folder") / f"STAR_{split}.json", "star.folder")

    @cached_property
    def _classes_folder(self) -> Path:
        if self.config.classes is not None:
            return existing_folder(self.config.classes, "star.classes")
        folder = Path(self.config.folder).expanduser()
        places = [folder / name for name in CLASS_FOLDERS]
        there = next((place for place in places if (place / OBJECTS).is_file()), None)
        return there or self._zipped_classes(folder) or places[0]

    def _zipped_classes(self, folder: Path) -> Path | None:
        """Where the class files and rates of classes.zip are copied to; None where no archive has them."""
        found, *_ = self._unzipped(folder, OBJECTS, *OTHER_FILES, *RATES)
        return found and found.parent

    @cached_property
    def _rates(self) -> Path | None:
        if self.config.fps_file is not None:
            return existing_file(self.config.fps_file, "star.fps_file")
        return next((file for name in RATES if (file := self._classes_folder / name).is_file()), None)

    @cached_property
    def _classes(self) -> Classes:
        return read_classes(self._classes_folder)

    # ------------------------------------------------------------------------------------------------------- one row

    def _example(self, row: Row, films: StarVideos) -> Example:
        value = _checked(row)
        options = _options(value)
        video = films.of(value["video_id"])
        clip = video.clip(*_bounds(value))
        return Example(
            id=_id(row),
            dataset=self.name,
            video=clip,
            question=value["question"].strip(),
            options=options,
            answer=self._answer(value, options),
            type=value["question_id"].split("_")[0],
            clues=self._clues(value, video, clip),
            meta={"template": value["question_id"].split("_")[1]},
        )

    def _answer(self, value: Mapping[str, Any], options: tuple[str, ...]) -> int | None:
        answer = value.get("answer")
        if answer is None and self.config.split == "test":
            return None
        if not isinstance(answer, str) or not answer.strip():
            raise BadRowError("no_answer", f"answer is {answer!r:.80}, must be the text of a choice")
        return index_of_text(answer.strip(), options)

    def _clues(self, value: Mapping[str, Any], video: StarVideo, clip: VideoRef) -> tuple[Clue, ...] | None:
        situations = value.get("situations")
        if not self.config.clues or not situations or video.look is None or video.fps is None:
            return None
        return clues_of(situations, self._classes, video.seconds, clip, video.look.size)


def _id(row: Row) -> str:
    """The official one; file and row where there is none."""
    found = row.value.get("question_id")
    return found if isinstance(found, str) and found.strip() else f"{row.file.stem}-{row.number}"


def _type(row: Row) -> str | None:
    kind = _id(row).split("_")[0]
    return kind if kind in TYPES else None


def _checked(row: Row) -> Mapping[str, Any]:
    """Texts are texts, and the id is <type>_<template>_<number>. Raises BadRowError malformed or unknown_type."""
    if row.problem:
        raise BadRowError("malformed", row.problem)
    for name in ("question_id", "question", "video_id"):
        text = row.value.get(name)
        if not isinstance(text, str) or not text.strip():
            raise BadRowError("malformed", f"{name} is {text!r:.80}, must be text")
    parts = row.value["question_id"].split("_")
    if len(parts) != 3:
        raise BadRowError("malformed", f"question_id {row.value['question_id']!r} is not <type>_<template>_<number>")
    if parts[0] not in TYPES:
        raise BadRowError("unknown_type", f"question_id starts with {parts[0]!r}, which is none of {', '.join(TYPES)}")
    return row.value


def _options(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Their texts in the order of the file; the field choice_id is not looked at."""
    choices = value.get("choices")
    texts = (
        [one.get("choice") if isinstance(one, Mapping) else None for one in choices]
        if isinstance(choices, list)
        else []
    )
    if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadRowError(
            "bad_options", f"choices are two or more objects with the text `choice`, not {choices!r:.120}"
        )
    return tuple(text.strip() for text in texts)


def _bounds(value: Mapping[str, Any]) -> tuple[float, float]:
    start, end = number_field(value, "start"), number_field(value, "end")
    if start is None or end is None:
        raise BadRowError("malformed", f"{'start' if start is None else 'end'} is missing")
    return start, end
