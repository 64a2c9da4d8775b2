"""The records that travel between the parts of the platform: frozen, self-checking, printed small.

THE shape legend, used in every tensor and array name of the project:

    B clips in a batch      Q questions per clip    A options           K clue slots     W words per clue
    T frames                C H W channels, height, width               N visual tokens  L text tokens
    D width of the model    V vocabulary

so `frames_THWC` is an array [frames, height, width, channels] and `alpha_BQKN` holds attention of every clue slot.
Times are seconds from the start of the *video file* unless a name says otherwise; boxes are fractions of the frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

CONCEPT_ROLES = ("who", "what", "whom")
"""What a clue says besides *when* it holds: subject, predicate, object. Missing roles are left out."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class VideoRef:
    """A part of a video: a file, or a folder of numbered frame images with `fps` saying their rate."""

    path: str
    start_seconds: float = 0.0
    end_seconds: float | None = None  # None: to the end of the file
    fps: float | None = None  # only for a folder of frames, whose files carry no time

    def __post_init__(self) -> None:
        _check(bool(self.path), "a video needs a path")
        _check(self.start_seconds >= 0, f"start_seconds is {self.start_seconds}, must be >= 0")
        if self.end_seconds is not None:
            _check(
                self.end_seconds > self.start_seconds,
                f"the clip ends at {self.end_seconds} s, not after its start at {self.start_seconds} s",
            )


@dataclass(frozen=True)
class Box:
    """Where something is at one moment: corners as fractions of width and height, origin top left."""

    seconds: float
    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        inside = 0 <= self.x1 < self.x2 <= 1 and 0 <= self.y1 < self.y2 <= 1
        _check(inside, f"box {(self.x1, self.y1, self.x2, self.y2)} is not 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1")


@dataclass(frozen=True)
class Clue:
    """One visual fact: text, when it holds, where it is seen, and its words by role if the source names them."""

    text: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    boxes: tuple[Box, ...] = ()
    concepts: Mapping[str, str] = field(default_factory=dict)  # keys from CONCEPT_ROLES, one word each

    def __post_init__(self) -> None:
        _check(bool(self.text.strip()), "a clue needs text")
        _check(
            (self.start_seconds is None) == (self.end_seconds is None),
            f"clue {self.text!r} has only one of start_seconds and end_seconds",
        )
        if self.start_seconds is not None and self.end_seconds is not None:
            _check(self.end_seconds >= self.start_seconds >= 0, f"clue {self.text!r} ends before it starts")
        unknown = set(self.concepts) - set(CONCEPT_ROLES)
        _check(not unknown, f"clue {self.text!r} has unknown roles {sorted(unknown)}; known: {CONCEPT_ROLES}")

    def shifted(self, seconds: float) -> Clue:
        """The same clue on another clock, no earlier than 0: `shifted(-start_seconds)` of a file's clue is a clip's."""
        boxes = tuple(replace(box, seconds=max(0.0, box.seconds + seconds)) for box in self.boxes)
        start, end = (
            None if time is None else max(0.0, time + seconds) for time in (self.start_seconds, self.end_seconds)
        )
        return replace(self, start_seconds=start, end_seconds=end, boxes=boxes)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Clue:
        """Inverse of `to_dict`; raises ValueError or TypeError on a malformed value."""
        boxes = tuple(Box(**box) for box in value.get("boxes", ()))
        return cls(**{**value, "boxes": boxes, "concepts": dict(value.get("concepts", {}))})

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "boxes": [asdict(box) for box in self.boxes],
            "concepts": dict(self.concepts),
        }


@dataclass(frozen=True)
class Example:
    """One question about one clip.

    `options` empty: open-ended, then `answer` is the reference text. Otherwise `answer` is an index into `options`,
    or None where the dataset hides it. `clues` None: not labelled; (): labelled, and no clue is needed.
    `distractors` are true facts of the same clip that do not help. `id` is unique within a dataset's split. `meta`: what
    only the benchmark's own metric and result file need (pairs, official ids, spans), as JSON values; no model sees it.
    """

    id: str
    dataset: str
    video: VideoRef
    question: str
    options: tuple[str, ...] = ()
    answer: int | str | None = None
    type: str = "all"
    clues: tuple[Clue, ...] | None = None
    distractors: tuple[Clue, ...] = ()
    chain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(bool(self.id), "an example needs an id")
        _check(bool(self.question.strip()), f"example {self.id}: the question is empty")
        _check(len(self.options) != 1, f"example {self.id}: one option is not a choice")
        if self.options and self.answer is not None:
            _check(
                isinstance(self.answer, int) and 0 <= self.answer < len(self.options),
                f"example {self.id}: answer {self.answer!r} is outside its {len(self.options)} options",
            )
        if not self.options:
            _check(self.answer is None or isinstance(self.answer, str), f"example {self.id}: answer must be text")

    @property
    def answer_text(self) -> str | None:
        """The right answer as words, whichever way it is stored."""
        return self.options[self.answer] if isinstance(self.answer, int) else self.answer

    def with_options_in(self, order: Sequence[int]) -> Example:
        """The same question with its options in another order: `order[i]` is the index here of the option that is i-th there."""
        answer = order.index(self.answer) if isinstance(self.answer, int) else self.answer
        return replace(self, options=tuple(self.options[index] for index in order), answer=answer)

    def with_clues(
        self, clues: tuple[Clue, ...] | None, chain: str | None, distractors: tuple[Clue, ...] = ()
    ) -> Example:
        return replace(self, clues=clues, chain=chain, distractors=distractors)

    def to_row(self) -> dict[str, Any]:
        """A flat row for Parquet; nested parts are JSON text."""
        is_index = isinstance(self.answer, int)
        return {
            "id": self.id,
            "dataset": self.dataset,
            "type": self.type,
            "question": self.question,
            "options": list(self.options),
            "answer_index": self.answer if is_index else None,
            "answer_text": None if is_index else self.answer,
            "video": json.dumps(asdict(self.video)),
            "clues": None if self.clues is None else json.dumps([clue.to_dict() for clue in self.clues]),
            "distractors": json.dumps([clue.to_dict() for clue in self.distractors]),
            "chain": self.chain,
            "meta": json.dumps(self.meta),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        clues = None if row["clues"] is None else tuple(map(Clue.from_dict, json.loads(row["clues"])))
        return cls(
            id=row["id"],
            dataset=row["dataset"],
            type=row["type"],
            question=row["question"],
            options=tuple(row["options"]),
            answer=row["answer_text"] if row["answer_index"] is None else int(row["answer_index"]),
            video=VideoRef(**json.loads(row["video"])),
            clues=clues,
            distractors=tuple(map(Clue.from_dict, json.loads(row["distractors"]))),
            chain=row["chain"],
            meta=json.loads(row["meta"]),
        )


@dataclass(frozen=True)
class Quarantined:
    """A row that cannot be used, kept for the accounts: rows in = rows ready + rows quarantined."""

    id: str
    dataset: str
    path: str
    reason: str  # short stable word: missing, empty, no_video_stream, corrupt, timeout, several_videos, ...
    detail: str
    reader: str | None = None
    type: str | None = None  # this and the next: of the question, where the row was good and its video is not
    meta: Mapping[str, Any] = field(default_factory=dict)
    row: int | None = None  # its place among the dataset's rows, once they are counted
    hidden: bool = False  # a good row whose answer is not public: it counts in no score

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, repr=False)
class Frames:
    """The sampled frames of one clip. `seconds_T`: presentation times from the start of the *clip*, ascending."""

    frames_THWC: np.ndarray  # uint8 RGB
    seconds_T: np.ndarray  # float64
    duration_seconds: float

    def __post_init__(self) -> None:
        frames, seconds = self.frames_THWC, self.seconds_T
        _check(
            frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8,
            f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {frames.shape}",
        )
        _check(seconds.shape == frames.shape[:1], f"{frames.shape[0]} frames but times of shape {seconds.shape}")
        _check(len(frames) > 0, "a clip needs at least one frame")

    def __repr__(self) -> str:
        t, h, w, _ = self.frames_THWC.shape
        return f"Frames(T={t}, H={h}, W={w}, {self.seconds_T[0]:.2f}..{self.seconds_T[-1]:.2f} s)"


@dataclass(frozen=True)
class PredictedClue:
    """A clue as the model states it, with what the filter thought of it."""

    text: str
    words: tuple[str, ...]
    start_seconds: float | None
    end_seconds: float | None
    box: Box | None
    gate: float | None  # None: the filter gives no score
    kept: bool
    attention_N: tuple[float, ...] = ()  # over visual tokens, empty where the extractor has none


@dataclass(frozen=True)
class Answer:
    """What the model answers to one example, and why. Log-probabilities are normalised over the options. `chain`: the
    reasoning that it wrote before, None where it writes none. `reply`: the answer that it wrote, None where its options were
    scored. `prediction` None: it wrote one that names no option."""

    example_id: str
    prediction: int | str | None
    option_logprobs: tuple[float, ...]
    clues: tuple[PredictedClue, ...] = ()
    chain: str | None = None
    reply: str | None = None

    @property
    def option_probabilities(self) -> tuple[float, ...]:
        return tuple(float(np.exp(value)) for value in self.option_logprobs)


def content_hash(*parts: Any, length: int = 20) -> str:
    """A short hex digest of JSON-able parts; the same everywhere and on every run."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
