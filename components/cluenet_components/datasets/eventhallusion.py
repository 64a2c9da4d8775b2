"""EventHallusion, yes/no questions about events that a model may presume instead of see: arXiv 2409.16597,
https://github.com/Stevetich/EventHallusion (no licence file).

Format: `questions/<kind>_questions.json`, a list of videos with `id`, `category`, `length`, `event_info` {object, scene,
caption, and bias or unexpected} and `questions` [{type, question, answer}]. Videos `<kind>/<id>.mp4`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import Field

from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder, source_of
from cluenet_components.datasets import _eventhallusion_metrics
from cluenet_components.datasets._eventhallusion_metrics import DESCRIPTION, KINDS, Kind
from cluenet_components.datasets._places import Places, ZippedDataset
from cluenet_components.datasets._rows import BadRowError, Row, claim, json_rows
from cluenet_components.datasets._yes_no import OPTIONS, answer_of

DESCRIBE = "Please describe this video in detail."
"""As the repository's scripts ask."""

SEEN = ("caption", "unexpected")
"""Of `event_info`, what happens in the video; `bias` is what a model may presume and does not happen."""


@register.dataset("eventhallusion")
class EventHallusionDataset(ZippedDataset):
    """EventHallusion: yes/no questions of three kinds, about events that do not happen and about unexpected ones.

    Ids are `<video>-<number of the question, from 0>`; the type is the kind. What happens, by `event_info`, comes as clues
    without times. On demand every video is also to be described (`<video>-description`): the answer is for others to judge,
    so it counts in no score here and stands in the prediction file. A video is looked for as `<videos>/<kind>/<id>.mp4` and as `<videos>/<id>.mp4`. All fields of the record
    are in `meta`.

    Bad rows are quarantined: malformed, answer_outside_options, corrupt_archive.
    """

    class Config(ZippedDataset.Config):
        split: Literal["test"] = Field("test", description="Which split to use; there is one.")
        folder: str = Field(..., min_length=1, description="Folder of the repository, or its folder questions.")
        videos: str = Field(..., min_length=1, description="Folder of the videos, in a folder for each kind or flat.")
        kinds: tuple[Kind, ...] = Field(
            KINDS, min_length=1, description="Which kinds of questions, the splits of the paper, to ask."
        )
        descriptions: bool = Field(
            False,
            description="Also ask for a description of every video, which the repository's gpt4o_judge.py judges.",
        )

    config: Config
    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "test": {"entire": 114, "misleading": 102, "interleave": 193, "questions": 409, "videos": 397}
    }

    @property
    def _videos_root(self) -> Path:
        return Path(self.config.videos).expanduser()

    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        for kind in KINDS:
            if kind in self.config.kinds:
                seen: dict[str, str] = {}
                for row in json_rows(self._file(kind)):
                    claim(_id(row), row, seen, "id")
                    yield from self._rows_of(kind, row, videos)

    def sources(self) -> list[str]:
        return [source_of(self._file(kind)) for kind in KINDS if kind in self.config.kinds]

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return _eventhallusion_metrics.measures(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return _eventhallusion_metrics.result_files(verdicts)

    def _file(self, kind: str) -> Path:
        folder = existing_folder(self.config.folder, "eventhallusion.folder")
        inner = folder / "questions"
        return existing_file((inner if inner.is_dir() else folder) / f"{kind}_questions.json", "eventhallusion.folder")

    def _rows_of(self, kind: str, row: Row, videos: Places) -> Iterator[Example | Quarantined]:
        """One for each question; one for a record whose questions cannot be told; the description of a good record."""
        asked = row.value.get("questions")
        problem = row.problem or _problem(row.value)
        record = {name: value for name, value in row.value.items() if name != "questions"}
        for number, question in enumerate(asked if isinstance(asked, list) and asked else [None]):
            key, meta = f"{_id(row)}-{number}", {"record": record, "question": question}
            try:
                if problem:
                    raise BadRowError("malformed", problem)
                yield self._example(key, kind, number, meta, videos)
            except BadRowError as bad:
                yield self._quarantined(key, kind, row, bad, meta)
        if self.config.descriptions and not problem:
            yield self._description(
                f"{_id(row)}-{DESCRIPTION}", kind, row, {"record": record, "question": None}, videos
            )

    def _description(
        self, key: str, kind: str, row: Row, meta: Mapping[str, Any], videos: Places
    ) -> Example | Quarantined:
        """The request for one."""
        try:
            video = _video(videos, kind, _id(row))
        except BadRowError as bad:
            return self._quarantined(key, kind, row, bad, meta, hidden=True)
        return Example(key, self.name, video, DESCRIBE, type=kind, meta=meta)

    def _quarantined(
        self, key: str, kind: str, row: Row, bad: BadRowError, meta: Mapping[str, Any], *, hidden: bool = False
    ) -> Quarantined:
        detail = f"{row.where}: {bad.detail}"
        return Quarantined(key, self.name, str(row.file), bad.reason, detail, type=kind, meta=meta, hidden=hidden)

    def _example(self, key: str, kind: str, number: int, meta: Mapping[str, Any], videos: Places) -> Example:
        record, asked = meta["record"], meta["question"]
        text = asked.get("question") if isinstance(asked, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            raise BadRowError("malformed", f"questions.{number} is {asked!r:.120}, must have a text as question")
        try:
            answer = answer_of(asked.get("answer"))
        except BadRowError as bad:
            raise BadRowError(bad.reason, f"questions.{number}: {bad.detail}") from None
        return Example(
            id=key,
            dataset=self.name,
            video=_video(videos, kind, record["id"].strip()),
            question=text.strip(),
            options=OPTIONS,
            answer=answer,
            type=kind,
            clues=_clues(record.get("event_info")),
            meta=meta,
        )


def _video(videos: Places, kind: str, name: str) -> VideoRef:
    nested, flat = f"{kind}/{name}.mp4", f"{name}.mp4"
    expected = nested if (videos.root / kind).is_dir() else flat
    return VideoRef(str(videos.file(nested, flat) or videos.root / expected))


def _id(row: Row) -> str:
    given = row.value.get("id")
    return given.strip() if isinstance(given, str) and given.strip() else f"{row.file.stem}-{row.number}"


def _problem(record: Mapping[str, Any]) -> str | None:
    """What makes every question of a record unusable."""
    name, asked = record.get("id"), record.get("questions")
    if not isinstance(name, str) or not name.strip() or PurePosixPath(name).name != name:
        return f"id is {name!r:.80}, must be the name of a video"
    if not isinstance(asked, list) or not asked:
        return f"questions is {asked!r:.80}, must be a list of questions"
    return None


def _clues(info: Any) -> tuple[Clue, ...] | None:
    """None where the record does not say what happens."""
    texts = [info.get(name) for name in SEEN] if isinstance(info, Mapping) else []
    told = tuple(Clue(text.strip()) for text in texts if isinstance(text, str) and text.strip())
    return told or None
