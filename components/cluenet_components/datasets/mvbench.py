"""MVBench, 20 temporal tasks: https://huggingface.co/datasets/OpenGVLab/MVBench (annotations MIT; videos keep the licences of
their sources). Format and metric: `video_chat2/mvbench.ipynb` of https://github.com/OpenGVLab/Ask-Anything.

Format: `json/<task>.json`, a list of objects with `video`, `question`, `candidates`, `answer` (the text of a candidate) and,
for tasks about a part of the video, `start` and `end` in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from cluenet.records import Example, Quarantined
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder, source_of
from cluenet_components.datasets import _mvbench_metrics, _originals
from cluenet_components.datasets._archives import archives_of
from cluenet_components.datasets._mvbench_tasks import BOUNDED, LAYOUTS, QUESTIONS, TASKS, TaskName, file_of
from cluenet_components.datasets._mvbench_videos import Part, Videos
from cluenet_components.datasets._places import Places, ZippedDataset
from cluenet_components.datasets._rows import BadRowError, Row, json_rows

log = logging.getLogger("cluenet")


@register.dataset("mvbench")
class MvBenchDataset(ZippedDataset):
    """MVBench: 4,000 multiple-choice questions, 200 of each of 20 temporal tasks.

    Ids are `<file>-<number in the file, from 0>`; the type is the task. Videos are looked for in the folders of the official
    notebook and of common copies, then in the .zip archives beside them; one that is nowhere keeps the path it should have
    and is counted as missing when it is opened (NTU RGB+D must be requested from its authors). Tasks about a part of the
    video are shown that part alone; files that were cut to it beforehand are taken whole.

    Bad rows are quarantined: malformed, bad_options, answer_outside_options, bad_bounds, corrupt_archive.
    """

    class Config(ZippedDataset.Config):
        split: Literal["test"] = Field("test", description="Which split to use; there is one.")
        folder: str = Field(..., min_length=1, description="Folder with the 20 json files, or with json/ and video/.")
        videos: str | None = Field(
            None,
            min_length=1,
            description="Folder of the videos, or of their .zip archives; null: video/ in the folder.",
        )
        tasks: tuple[TaskName, ...] | None = Field(None, min_length=1, description="Which tasks to ask; null: all 20.")

    config: Config
    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "test": {**dict.fromkeys(TASKS, QUESTIONS), "questions": QUESTIONS * len(TASKS)}
    }

    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        found = Videos(videos)
        for task in self._tasks():
            yield from self._rows_of(task, found)

    def sources(self) -> list[str]:
        """The questions, and which layouts of videos there are: they decide what is cut."""
        root = self._videos_root
        layouts = {layout.folder for task in self._tasks() for layout in LAYOUTS[task]}
        archives = [path.name for path in archives_of(root)]
        there = [folder for folder in layouts if (root / folder).is_dir()]
        return [*(source_of(self._file(task)) for task in self._tasks()), *sorted([*there, *archives])]

    @classmethod
    def source_id(cls, video: str) -> str | None:
        parts = Path(video).parts
        if "star" in parts or "sta" in parts:
            return _originals.charades(video)
        return _originals.clevrer(video) if "clevrer" in parts else None

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return _mvbench_metrics.measures(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return _mvbench_metrics.result_files(verdicts)

    def _tasks(self) -> list[TaskName]:
        return [task for task in TASKS if self.config.tasks is None or task in self.config.tasks]

    def _file(self, task: TaskName) -> Path:
        folder = existing_folder(self.config.folder, "mvbench.folder")
        inner = folder / "json"
        return existing_file((inner if inner.is_dir() else folder) / file_of(task), "mvbench.folder")

    @property
    def _videos_root(self) -> Path:
        given = self.config.videos
        return Path(self.config.folder, "video").expanduser() if given is None else Path(given).expanduser()

    def _rows_of(self, task: TaskName, videos: Videos) -> Iterator[Example | Quarantined]:
        seen: dict[tuple[Any, ...], str] = {}
        repeated = 0
        for row in json_rows(file := self._file(task)):
            key = f"{file.stem}-{row.number - 1:04d}"
            try:
                example = self._example(key, task, row, videos, seen)
                repeated += "repeats" in example.meta
                yield example
            except BadRowError as bad:
                yield Quarantined(key, self.name, str(file), bad.reason, f"{row.where}: {bad.detail}", type=task)
        if repeated:
            log.warning(
                "%s: asked a second time, and kept: %d questions (`repeats` in their meta). The release of June 2024 replaced "
                "such questions: download it again to have each once.", file, repeated,
            )  # fmt: skip

    def _example(self, key: str, task: TaskName, row: Row, videos: Videos, seen: dict[tuple[Any, ...], str]) -> Example:
        if row.problem:
            raise BadRowError("malformed", row.problem)
        question, options = _text(row.value, "question"), _candidates(row.value)
        answer = _answer(row.value, options)
        part = Part.of(row.value, is_bounded=task in BOUNDED)
        first = seen.setdefault((part, question, options), key)
        meta = {
            "gt": _mvbench_metrics.lettered(answer, options[answer]),
            **({} if first == key else {"repeats": first}),
        }
        return Example(
            id=key,
            dataset=self.name,
            video=videos.ref(task, part),
            question=question,
            options=options,
            answer=answer,
            type=task,
            meta=meta,
        )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError("malformed", f"{name} is {value!r:.80}, must be text")
    return value.strip()


def _candidates(row: Mapping[str, Any]) -> tuple[str, ...]:
    given = row.get("candidates")
    if not isinstance(given, list) or len(given) < 2 or not all(isinstance(one, str) and one.strip() for one in given):
        raise BadRowError("bad_options", f"candidates is {given!r:.200}, must be a list of two or more texts")
    return tuple(one.strip() for one in given)


def _answer(row: Mapping[str, Any], options: tuple[str, ...]) -> int:
    answer = _text(row, "answer")
    if answer not in options:
        raise BadRowError("answer_outside_options", f"answer {answer!r:.80} is none of {list(options)}")
    if options.count(answer) > 1:
        raise BadRowError("bad_options", f"answer {answer!r:.80} stands twice in {list(options)}")
    return options.index(answer)
