"""NExT-GQA, grounded multiple choice: https://github.com/doc-doc/NExT-GQA (annotations MIT; the videos are VidOR's).

Format: `datasets/nextgqa/{train,val,test}.csv` as NExT-QA's, but with `video_id`, and `answer` as the option's text;
`gsub_{val,test}.json` with the spans that answer each question: {video: {"duration", "location": {qid: [[s, e], ...]}}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cluenet.errors import DataError
from cluenet.records import Clue
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder, read_text
from cluenet_components.datasets._nextgqa_metrics import grounding, result_texts
from cluenet_components.datasets._nextqa_dataset import NextQaFamily
from cluenet_components.datasets._nextqa_rows import official_rows, options_of
from cluenet_components.datasets._options import index_of_text
from cluenet_components.datasets._rows import BadRowError, Row

ADVICE = "Take datasets/nextgqa of doc-doc/NExT-GQA."
WORDS, CONCEPTS = "the answer can be seen", {"what": "answer"}
"""Of a span as a clue. What is seen is not labelled, and the words of the answer would give it away."""


@register.dataset("nextgqa")
class NextGqaDataset(NextQaFamily):
    """NExT-GQA: questions of NExT-QA whose answer lies in labelled time spans; asks for answer and span.

    Ids are `<video>_<qid>`. The spans are in `meta["spans"]`, for the metric. They say when and not what, so they come as
    clues only on demand (`clues`), all with the same words. The predicted span is the one that the model's kept clues point
    at. The train split has no spans. Videos are looked for as `nextqa` does.

    Bad rows are quarantined: malformed, answer_outside_options, ambiguous_answer, bad_options, unknown_type, no_spans,
    bad_spans, no_fps, corrupt_archive.
    """

    class Config(NextQaFamily.Config):
        clues: bool = Field(
            False,
            description="Whether labelled spans come as clues: times with the same words everywhere, so that agreement of "
            "clues in words means nothing then.",
        )

    config: Config

    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "val": {"questions": 3358, "videos": 567, "CW": 1474, "TN": 879, "CH": 481, "TC": 472, "TP": 52},
        "test": {"questions": 5553, "videos": 990, "CW": 2456, "TN": 1356, "TC": 852, "CH": 796, "TP": 93},
    }

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return grounding(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return result_texts(verdicts)

    def _files(self) -> list[Path]:
        folder = existing_folder(self.config.folder, "nextgqa.folder")
        spans = [] if self._split == "train" else [f"gsub_{self._split}.json"]
        return [existing_file(folder / name, "nextgqa.folder") for name in (f"{self._split}.csv", *spans)]

    def _rows(self) -> Iterator[Row]:
        return official_rows(self._files()[0], ADVICE, video="video_id")

    def _answer(self, row: Row) -> int:
        return index_of_text(row.value["answer"], options_of(row.value))

    def _labels(self, row: Row) -> dict[str, Any]:
        return {"spans": self._spans.of(row)} if self._spans else {}

    def _clues(self, labels: Mapping[str, Any]) -> tuple[Clue, ...] | None:
        spans = sorted(labels.get("spans", ())) if self.config.clues else []
        return tuple(Clue(WORDS, start, end, concepts=CONCEPTS) for start, end in spans) or None

    @cached_property
    def _spans(self) -> Spans | None:
        files = self._files()[1:]
        return Spans(files[0]) if files else None


class Spans:
    """Labelled spans of one split, in seconds of the video file. Raises DataError when the file as a whole is wrong."""

    def __init__(self, file: Path):
        self.file = file
        try:
            self._videos = json.loads(read_text(file))
        except ValueError as error:
            raise DataError(f"{file}: is not valid JSON: {error}. Download it again.") from error
        if not isinstance(self._videos, dict):
            raise DataError(f"{file}: must be an object by video, not {self._videos!r:.80}. {ADVICE}")

    def of(self, row: Row) -> list[list[float]]:
        """Those of a question. Raises BadRowError no_spans or bad_spans."""
        video, qid = row.value["video"], row.value["qid"]
        path = f"{self.file.name}: {video}.location.{qid}"
        about = self._videos.get(video)
        location = about.get("location") if isinstance(about, Mapping) else None
        if not isinstance(location, Mapping) or qid not in location:
            raise BadRowError("no_spans", f"{path} is missing")
        spans = location[qid]
        if not isinstance(spans, list) or not spans or not all(map(_is_span, spans)):
            raise BadRowError(
                "bad_spans", f"{path} is {spans!r:.120}, must be [[start, end], ...] with 0 <= start <= end"
            )
        return spans


def _is_span(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(time) in (int, float) for time in value)
    return numbers and 0 <= value[0] <= value[1] < float("inf")
