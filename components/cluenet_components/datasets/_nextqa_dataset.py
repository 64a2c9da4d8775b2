"""What NExT-QA and NExT-GQA have in common: rows of five options about VidOR's videos, with the keys `<video>_<qid>`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cluenet.errors import DataError
from cluenet.records import Clue, Example, Quarantined
from cluenet_components._files import source_of
from cluenet_components.datasets._nextqa_rows import PLACE, check, key_of, options_of, question_of, type_of
from cluenet_components.datasets._originals import vidor
from cluenet_components.datasets._places import Places, ZippedDataset
from cluenet_components.datasets._rows import BadRowError, Row, claim
from cluenet_components.datasets._vidor import MAP_NAME, VidorVideos, map_file_of


class NextQaFamily(ZippedDataset):
    """`_files`: what the rows come from, the questions first; `_rows` reads the questions."""

    class Config(ZippedDataset.Config):
        split: Literal["train", "val", "validation", "test"] = Field(
            "train", description="Which split to use; validation is another word for val."
        )
        folder: str = Field(..., min_length=1, description="Folder with the annotation files of all splits.")
        videos: str = Field(..., min_length=1, description="Folder of the videos, in VidOR's subfolders or flat.")
        map_file: str | None = Field(
            None, min_length=1, description=f"Video id to VidOR path; null: {MAP_NAME} of either folder, if there."
        )
        fps: float | None = Field(None, gt=0, description="Frames per second of videos kept as folders of frames.")

    config: Config

    @property
    def _videos_root(self) -> Path:
        return Path(self.config.videos).expanduser()

    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        films = VidorVideos(self.name, videos, self._map_file(), self.config.fps)
        seen: dict[str, str] = {}
        for row in self._rows():
            claim(key_of(row), row, seen, "video and qid")
            try:
                yield self._example(row, films)
            except BadRowError as bad:
                yield self._quarantined(row, bad)
        if not seen:
            raise DataError(f"{self._files()[0]}: empty dataset: a header and no rows. Download the file again.")

    def sources(self) -> list[str]:
        map_file = self._map_file()
        return [source_of(file) for file in (*self._files(), *([map_file] if map_file else []))]

    @classmethod
    def source_id(cls, video: str) -> str | None:
        return vidor(video)

    @property
    def _split(self) -> str:
        return {"validation": "val"}.get(self.config.split, self.config.split)

    @abstractmethod
    def _files(self) -> list[Path]: ...

    @abstractmethod
    def _rows(self) -> Iterator[Row]: ...

    @abstractmethod
    def _answer(self, row: Row) -> int:
        """Index of the right option. Raises BadRowError."""

    def _clues(self, labels: Mapping[str, Any]) -> tuple[Clue, ...] | None:
        """labels: what `_labels` has of the row."""
        return None

    def _labels(self, row: Row) -> dict[str, Any]:
        """What the metric needs besides, for `meta`. Raises BadRowError."""
        return {}

    def _map_file(self) -> Path | None:
        return map_file_of(f"{self.name}.map_file", self.config.map_file, self.config.folder, self.config.videos)

    def _example(self, row: Row, films: VidorVideos) -> Example:
        check(row)
        answer, labels = self._answer(row), self._labels(row)
        return Example(
            id=key_of(row),
            dataset=self.name,
            video=films.ref(row.value["video"], row.value.get(PLACE, "")),
            question=question_of(row.value),
            options=options_of(row.value),
            answer=answer,
            type=row.value["type"],
            clues=self._clues(labels),
            meta={"answer": answer, **labels},
        )

    def _quarantined(self, row: Row, bad: BadRowError) -> Quarantined:
        """With all that is known of the row, so that it counts as wrong where it belongs."""
        meta: dict[str, Any] = {}
        for part in (lambda: {"answer": self._answer(row)}, lambda: self._labels(row)):
            try:
                meta |= part()
            except BadRowError:
                continue
        detail = f"{row.where}: {bad.detail}"
        return Quarantined(key_of(row), self.name, str(row.file), bad.reason, detail, type=type_of(row), meta=meta)
