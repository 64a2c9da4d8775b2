"""CLEVRER: http://clevrer.csail.mit.edu (CC0), causal questions about videos of colliding objects.

Format: http://data.csail.mit.edu/clevrer/README.txt. `{train,validation,test}.json`, a list of scenes with `scene_index`,
`video_filename` and `questions`; videos and annotations in folders of a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from cluenet.records import Clue, Example, Quarantined, VideoRef, content_hash
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder, source_of
from cluenet_components.datasets import _clevrer_metrics, _originals
from cluenet_components.datasets._archives import archives_of
from cluenet_components.datasets._clevrer_clues import clues_of
from cluenet_components.datasets._clevrer_metrics import CHOICE_TYPES, SUBMISSION
from cluenet_components.datasets._clevrer_places import expected_place, find, folders_of
from cluenet_components.datasets._clevrer_rows import asked, checked_question, checked_scene, choices_of, type_of
from cluenet_components.datasets._places import Places, ZippedDataset, existing_places
from cluenet_components.datasets._rows import BadRowError, Row, claim, json_rows


@register.dataset("clevrer")
class ClevrerDataset(ZippedDataset):
    """CLEVRER: descriptive, explanatory, predictive and counterfactual questions, with events as clues.

    A descriptive question is one example, its options all answers of its subtype. In the other three types several options
    may be right: each is an example of its own, "correct" or "wrong". Ids are `<scene>_<question>` and
    `<scene>_<question>_<choice>`. All questions of a scene share its clip, the whole video; predictive ones ask what happens
    after it.

    Bad rows are quarantined: malformed, unknown_type, bad_options, no_answer, answer_outside_options, bad_clues,
    corrupt_archive.
    """

    class Config(ZippedDataset.Config):
        split: Literal["train", "validation", "val", "test"] = Field(
            "train", description="Which split to use; val is another word for validation. test has no answers."
        )
        folder: str = Field(
            ..., min_length=1, description="Folder with train.json, validation.json and test.json, or with questions/."
        )
        videos: str | None = Field(
            None, min_length=1, description="Folder with video_<split> or videos/<split>; null: the folder above."
        )
        annotations: str | None = Field(
            None,
            min_length=1,
            description="Folder with annotation_<split> or annotations/<split>; null: the folder above.",
        )
        clues: bool = Field(True, description="Whether events of the annotations, where there are any, come as clues.")
        fps: float = Field(
            25.6, gt=0, description="Frames per second of the videos, for times of events: 128 frames in 5 seconds."
        )

    config: Config

    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"videos": 10_000}, "validation": {"videos": 5_000}, "test": {"videos": 5_000},
    }  # fmt: skip

    @classmethod
    def source_id(cls, video: str) -> str | None:
        return _originals.clevrer(video)

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return _clevrer_metrics.measures(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return {SUBMISSION: _clevrer_metrics.submission(verdicts)}

    def _rows_with(self, videos: Places) -> Iterator[Example | Quarantined]:
        seen: dict[str, str] = {}
        for row in json_rows(self._file):
            for result in self._scene(row, videos):
                claim(result.id, row, seen, "scene_index, question_id and choice_id")
                yield result

    def sources(self) -> list[str]:
        """Annotations are named by size: they are gigabytes."""
        sizes = self._event_sizes() if self.config.clues else []
        return [source_of(self._file), *([content_hash(sizes)] if sizes else [])]

    def _event_sizes(self) -> list[tuple[str, int]]:
        """Of the annotation files of the split and, where it has no folder of them, of their archives."""
        root = self._events_root
        folders = (root / folder for folder in folders_of("annotation", self._split))
        folder = next((path for path in folders if path.is_dir()), None)
        if folder is None:
            return [(path.name, path.stat().st_size) for path in archives_of(root) if "annotation" in path.name]
        files = sorted(folder.rglob("annotation_*.json"))
        return [(str(file.relative_to(folder)), file.stat().st_size) for file in files]

    # ------------------------------------------------------------------------------------------------ where things are

    @property
    def _split(self) -> str:
        return {"val": "validation"}.get(self.config.split, self.config.split)

    @cached_property
    def _file(self) -> Path:
        folder = existing_folder(self.config.folder, "clevrer.folder")
        inside = folder / "questions"
        return existing_file((inside if inside.is_dir() else folder) / f"{self._split}.json", "clevrer.folder")

    @property
    def _videos_setting(self) -> str:
        return "folder" if self.config.videos is None else "videos"

    @property
    def _videos_root(self) -> Path:
        return Path(self.config.videos or self.config.folder).expanduser()

    @cached_property
    def _events_root(self) -> Path:
        given = self.config.annotations or self.config.folder
        return existing_places(Path(given).expanduser(), "clevrer.annotations")

    @property
    def _more_roots(self) -> Sequence[Path]:
        return (self._events_root,) if self.config.clues else ()

    # ------------------------------------------------------------------------------------------------------------ rows

    def _scene(self, row: Row, videos: Places) -> Iterator[Example | Quarantined]:
        """The examples of one scene, or what is wrong with it. With unreadable events, or a video in a damaged archive, it
        keeps its rows, as bad ones."""
        try:
            scene = checked_scene(row)
        except BadRowError as bad:
            yield self._quarantined(f"{self._file.stem}-{row.number}", None, {}, row.where, bad)
            return
        video, clues, unreadable = self._seen(scene, videos)
        for result in self._questions(scene, video, clues, row.where):
            if unreadable is not None and isinstance(result, Example):
                yield self._quarantined(result.id, result.type, result.meta, row.where, unreadable)
            else:
                yield result

    def _seen(
        self, scene: Mapping[str, Any], videos: Places
    ) -> tuple[VideoRef, tuple[Clue, ...] | None, BadRowError | None]:
        """Video, events, and why one of the two cannot be had."""
        name, index = scene["video_filename"], scene["scene_index"]
        expected = VideoRef(str(expected_place(videos, "video", self._split, name, index)))
        try:
            path = find(videos, "video", self._split, name, index)
            clues = self._clues(index, videos.at(self._events_root)) if self.config.clues else None
        except BadRowError as bad:
            return expected, None, bad
        return expected if path is None else VideoRef(str(path)), clues, None

    def _clues(self, scene: int, events: Places) -> tuple[Clue, ...] | None:
        file = find(events, "annotation", self._split, f"annotation_{scene:05d}.json", scene)
        return file and clues_of(file, self.config.fps)

    def _questions(
        self, scene: Mapping[str, Any], video: VideoRef, clues: tuple[Clue, ...] | None, where: str
    ) -> Iterator[Example | Quarantined]:
        for number, question in enumerate(scene["questions"]):
            yield from self._question(scene["scene_index"], number, question, video, clues, where)

    def _question(
        self, scene: int, number: int, value: Any, video: VideoRef, clues: tuple[Clue, ...] | None, where: str
    ) -> Iterator[Example | Quarantined]:
        where, kind = f"{where}, questions.{number}", None
        example_id, meta = f"{scene}_at{number}", {"scene_index": scene}
        try:
            question = checked_question(value)
            example_id, meta = f"{scene}_{question['question_id']}", {**meta, "question_id": question["question_id"]}
            kind = type_of(question)
            parts = choices_of(question) if kind in CHOICE_TYPES else [question]
        except BadRowError as bad:
            yield self._quarantined(example_id, kind, meta, where, bad)
            return
        for place, part in enumerate(parts):
            if kind in CHOICE_TYPES:
                choice = part["choice_id"]
                named = f"{example_id}_{choice}", {**meta, "choices": len(parts), "choice_id": choice}
                yield self._example(*named, kind, question, part, video, clues, f"{where}.choices.{place}")
            else:
                yield self._example(example_id, meta, kind, question, part, video, clues, where)

    def _example(
        self, example_id: str, meta: Mapping[str, Any], kind: str, question: Mapping[str, Any], part: Mapping[str, Any],
        video: VideoRef, clues: tuple[Clue, ...] | None, where: str,
    ) -> Example | Quarantined:  # fmt: skip
        """`part`: what has the answer, the question itself or one of its choices."""
        try:
            text, options = asked(question, part, kind)
            answer = self._answer(part, options)
        except BadRowError as bad:
            return self._quarantined(example_id, kind, meta, where, bad)
        return Example(example_id, self.name, video, text, options, answer, kind, clues, meta=meta)

    def _answer(self, part: Mapping[str, Any], options: tuple[str, ...]) -> int | None:
        answer = part.get("answer")
        if answer is None and self._split == "test":
            return None
        if answer is None:
            raise BadRowError("no_answer", "answer is missing, and only the test split hides its answers")
        if answer not in options:
            raise BadRowError("answer_outside_options", f"answer {answer!r:.80} is none of {', '.join(options)}")
        return options.index(answer)

    def _quarantined(
        self, example_id: str, kind: str | None, meta: Mapping[str, Any], where: str, bad: BadRowError
    ) -> Quarantined:
        detail = f"{where}: {bad.detail}"
        return Quarantined(example_id, self.name, str(self._file), bad.reason, detail, type=kind, meta=meta)
