"""VideoHallucer, pairs of yes/no questions about what is and what is not there: arXiv 2406.16338,
https://github.com/patrick-tssn/VideoHallucer and https://huggingface.co/datasets/ColorfulAI/VideoHallucer (MIT).

Format: `videohallucer_datasets/<category>/<category>.json`, a list of pairs with a `basic` and a `hallucination` side, each
`video`, `question`, `answer`; in some categories also `type`. Videos in `<category>/videos/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from cluenet.records import Example, Quarantined, VideoRef
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, source_of
from cluenet_components.datasets import _videohallucer_metrics
from cluenet_components.datasets._places import Places, ZippedDataset, existing_places
from cluenet_components.datasets._rows import BadRowError, Row, json_rows
from cluenet_components.datasets._videohallucer_metrics import ALL_CATEGORIES, CATEGORIES, EXTERNAL, SIDES, Category
from cluenet_components.datasets._yes_no import OPTIONS, answer_of


@register.dataset("videohallucer")
class VideoHallucerDataset(ZippedDataset):
    """VideoHallucer: pairs of a basic and a hallucinated yes/no question, right only together.

    Ids are `<category>-<number in the file, from 0>-<side>`; the type is the category. Each side is asked about its own
    video (semantic_detail pairs have two). external_factual and external_nonfactual share videos: one that is not in its
    own category's folder is taken from the other's. A bad pair gives two bad rows, a bad side one.

    Bad rows are quarantined: malformed, answer_outside_options, corrupt_archive.
    """

    class Config(ZippedDataset.Config):
        split: Literal["test"] = Field("test", description="Which split to use; there is one.")
        folder: str = Field(
            ..., min_length=1, description="Folder videohallucer_datasets, with a folder for each category."
        )
        categories: tuple[Category, ...] = Field(
            CATEGORIES, min_length=1, description="Which categories to ask; interaction counts in no overall measure."
        )

    config: Config
    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "test": {category: 400 for category in CATEGORIES if category != "temporal"}
    }

    @property
    def _videos_setting(self) -> str:
        return "folder"

    @property
    def _videos_root(self) -> Path:
        return Path(self.config.folder).expanduser()

    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        for category in self._categories():
            for row in json_rows(self._file(category)):
                yield from (self._result(category, row, side, videos) for side in SIDES)

    def sources(self) -> list[str]:
        return [source_of(self._file(category)) for category in self._categories()]

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return _videohallucer_metrics.measures(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return _videohallucer_metrics.result_files(verdicts)

    def _categories(self) -> list[str]:
        return [category for category in ALL_CATEGORIES if category in self.config.categories]

    def _file(self, category: str) -> Path:
        """Copied out of its archive where it lies in one."""
        root, place = existing_places(self._videos_root, "videohallucer.folder"), f"{category}/{category}.json"
        found = None if (root / place).is_file() else self._unzipped(root, place)[0]
        return existing_file(found or root / place, "videohallucer.folder")

    def _result(self, category: str, row: Row, side: str, videos: Places) -> Example | Quarantined:
        pair = f"{category}-{row.number - 1:04d}"
        record = row.value.get(side)
        meta = {"pair": pair, "side": side, "record": record, "type": row.value.get("type"), "is_yes": side == SIDES[0]}
        try:
            return self._example(f"{pair}-{side}", category, row, side, meta, videos)
        except BadRowError as bad:
            detail = f"{row.where}: {bad.detail}"
            return Quarantined(f"{pair}-{side}", self.name, str(row.file), bad.reason, detail, type=category, meta=meta)

    def _example(self, key: str, category: str, row: Row, side: str, meta: dict[str, Any], videos: Places) -> Example:
        if row.problem:
            raise BadRowError("malformed", row.problem)
        record = row.value.get(side)
        if not isinstance(record, Mapping):
            raise BadRowError(
                "malformed", f"{side} is {record!r:.80}, must be an object with video, question and answer"
            )
        try:
            question, answer, video = _text(record, "question"), answer_of(record.get("answer")), _text(record, "video")
        except BadRowError as bad:
            raise BadRowError(bad.reason, f"{side}: {bad.detail}") from None
        meta["is_yes"] = OPTIONS[answer] == "yes"
        return Example(
            id=key,
            dataset=self.name,
            video=_video(videos, category, video),
            question=question,
            options=OPTIONS,
            answer=answer,
            type=category,
            meta=meta,
        )


def _video(videos: Places, category: str, name: str) -> VideoRef:
    """In the category's own folder, unless only the other external one has it."""
    homes = [category, *(other for other in EXTERNAL if category in EXTERNAL and other != category)]
    names = [f"{home}/videos/{name}" for home in homes]
    found = (path for there in (videos.on_disk, videos) for place in names if (path := there.file(place)))
    return VideoRef(str(next(found, videos.root / names[0])))


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRowError("malformed", f"{name} is {value!r:.80}, must be text")
    if name == "video" and PurePosixPath(value).name != value:
        raise BadRowError("malformed", f"video is {value!r:.80}, must be the name of a file")
    return value.strip()
