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

from cluenet.contracts import Dataset
from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder, source_of
from cluenet_components.datasets import _eventhallusion_metrics
from cluenet_components.datasets._eventhallusion_metrics import KINDS, Kind
from cluenet_components.datasets._rows import BadRowError, Row, claim, json_rows
from cluenet_components.datasets._yes_no import OPTIONS, answer_of

SEEN = ("caption", "unexpected")
"""Of `event_info`, what happens in the video; `bias` is what a model may presume and does not happen."""


@register.dataset("eventhallusion")
class EventHallusionDataset(Dataset):
    """EventHallusion: yes/no questions of three kinds, about events that do not happen and about unexpected ones.

    Ids are `<video>-<number of the question, from 0>`; the type is the kind. What happens, by `event_info`, comes as clues
    without times. A video is looked for as `<videos>/<kind>/<id>.mp4` and as `<videos>/<id>.mp4`. All fields of the record
    are in `meta`.

    Bad rows are quarantined: malformed, answer_outside_options.
    """

    class Config(Dataset.Config):
        split: Literal["test"] = Field("test", description="Which split to use; there is one.")
        folder: str = Field(..., min_length=1, description="Folder of the repository, or its folder questions.")
        videos: str = Field(..., min_length=1, description="Folder of the videos, in a folder for each kind or flat.")
        kinds: tuple[Kind, ...] = Field(
            KINDS, min_length=1, description="Which kinds of questions, the splits of the paper, to ask."
        )

    config: Config
    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "test": {"entire": 114, "misleading": 102, "interleave": 193, "questions": 409, "videos": 397}
    }

    def rows(self) -> Iterator[Example | Quarantined]:
        existing_folder(self.config.videos, "eventhallusion.videos")
        yield from self.described()

    def described(self) -> Iterator[Example | Quarantined]:
        for kind in KINDS:
            if kind in self.config.kinds:
                seen: dict[str, str] = {}
                for row in json_rows(self._file(kind)):
                    claim(_id(row), row, seen)
                    yield from self._rows_of(kind, row)

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

    def _rows_of(self, kind: str, row: Row) -> Iterator[Example | Quarantined]:
        """One for each question; one for a record whose questions cannot be told."""
        asked = row.value.get("questions")
        problem = row.problem or _problem(row.value)
        record = {name: value for name, value in row.value.items() if name != "questions"}
        for number, question in enumerate(asked if isinstance(asked, list) and asked else [None]):
            key, meta = f"{_id(row)}-{number}", {"record": record, "question": question}
            try:
                if problem:
                    raise BadRowError("malformed", problem)
                yield self._example(key, kind, number, meta)
            except BadRowError as bad:
                detail = f"{row.where}: {bad.detail}"
                yield Quarantined(key, self.name, str(row.file), bad.reason, detail, type=kind, meta=meta)

    def _example(self, key: str, kind: str, number: int, meta: Mapping[str, Any]) -> Example:
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
            video=self._video(kind, record["id"].strip()),
            question=text.strip(),
            options=OPTIONS,
            answer=answer,
            type=kind,
            clues=_clues(record.get("event_info")),
            meta=meta,
        )

    def _video(self, kind: str, name: str) -> VideoRef:
        root = Path(self.config.videos).expanduser()
        places = [root / kind / f"{name}.mp4", root / f"{name}.mp4"]
        there = [place for place in places if place.is_file()]
        return VideoRef(str(there[0] if there else places[0 if places[0].parent.is_dir() else 1]))


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
