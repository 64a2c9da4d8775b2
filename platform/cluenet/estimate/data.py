"""How many clips and questions a recipe has, the frames of a clip, and the bytes that they take when they are prepared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import get_args

import numpy as np

from cluenet import storage
from cluenet.config.data import DataSection, Size
from cluenet.contracts import VideoFile
from cluenet.errors import CluenetError, DataError
from cluenet.folders import finished
from cluenet.planning import Split
from cluenet.prepared import PreparedSet, folder_of
from cluenet.recipe import Recipe
from cluenet.records import Example, Frames, VideoRef
from cluenet.registry import ComponentConfig

CLIPS_COUNTED = 200
"""Of a dataset that knows how many it has."""
EXAMPLES = 512
"""Training questions whose texts are measured."""
HOUR_SECONDS, FPS = 3600, 4
OBJECT_BYTES_PER_CLIP = 1024
"""In Ray's object store while clips are prepared: what is asked for and the account of it, as JSON. Frames never are."""


@dataclass(frozen=True)
class Entry:
    """One entry of `data.train`, `data.validation` or `data.test`."""

    split: Split
    name: str
    clips: int
    questions: int
    source: str  # prepared; rows; sample, of whose clips questions were counted; given
    prepared_bytes: int | None = None  # measured, where it is prepared


@dataclass(frozen=True)
class DataSize:
    """`unread`: entries whose rows are not on this machine, with the reason."""

    entries: tuple[Entry, ...]
    examples: tuple[Example, ...]  # some of the training questions, empty where none can be read
    unread: tuple[str, ...] = ()

    @property
    def clips(self) -> int:
        return sum(entry.clips for entry in self.entries)

    @property
    def questions(self) -> int:
        return sum(entry.questions for entry in self.entries)


def data_size(recipe: Recipe, *, clips: int | None = None, questions: int | None = None) -> DataSize:
    """`clips`, `questions`: of the training data whose rows are not on this machine.

    Raises DataError where rows cannot be read and no numbers are given, CluenetError for one number without the other.
    """
    if (clips is None) != (questions is None):
        raise CluenetError("--clips and --questions go together: give both, or neither.")
    found: dict[str, Entry] = {}
    examples: list[Example] = []
    unread: dict[Split, list[str]] = {split: [] for split in get_args(Split)}
    for split, config in _configs(recipe):
        try:
            entry, some = _entry(recipe, split, config)
        except DataError as error:
            if clips is None:
                raise DataError(f"{error} To plan without this data give --clips N --questions N.") from error
            unread[split].append(f"data.{split}: {error}")
            continue
        found.setdefault(str(config.to_dict()), entry)  # an entry that comes twice is prepared once
        examples += some if split == "train" else []
    if unread["train"] and clips and questions:
        found["given"] = Entry("train", "as given", clips, questions, "given")
    return DataSize(tuple(found.values()), tuple(examples[:EXAMPLES]), tuple(chain(*unread.values())))


def _configs(recipe: Recipe) -> Iterator[tuple[Split, ComponentConfig]]:
    for split in get_args(Split):
        for config in getattr(recipe.data, split):
            yield split, config


def _entry(recipe: Recipe, split: Split, config: ComponentConfig) -> tuple[Entry, list[Example]]:
    """The entry, and the first of its questions. Raises DataError."""
    folder = folder_of(recipe, config)
    return _prepared(split, config, folder) if finished(folder) else _from_rows(recipe, split, config)


def _prepared(split: Split, config: ComponentConfig, folder: Path) -> tuple[Entry, list[Example]]:
    prepared = PreparedSet(folder)
    examples = (one for key in prepared.clip_keys for one in prepared.examples_of(key))
    size = sum(storage.sizes(folder / "clips", "part-*").values())
    entry = Entry(split, config.name, len(prepared), prepared.num_questions, "prepared", size)
    return entry, list(islice(examples, EXAMPLES))


def _from_rows(recipe: Recipe, split: Split, config: ComponentConfig) -> tuple[Entry, list[Example]]:
    dataset, most = config.build(), config.max_samples  # type: ignore[attr-defined]
    known = None if most else dataset.num_clips
    by_clip: dict[VideoRef, list[Example]] = {}
    for row in islice(dataset.described(), most):
        if isinstance(row, Example):
            if known and row.video not in by_clip and len(by_clip) == CLIPS_COUNTED:
                break
            by_clip.setdefault(row.video, []).append(row)
    return _counted(split, config.name, by_clip, known), _first_examples(recipe, by_clip)


def _counted(split: Split, name: str, by_clip: Mapping[VideoRef, Sequence[Example]], known: int | None) -> Entry:
    questions = sum(map(len, by_clip.values()))
    if known and len(by_clip) < known:
        return Entry(split, name, known, round(questions * known / len(by_clip)), "sample")
    return Entry(split, name, len(by_clip), questions, "rows")


def _first_examples(recipe: Recipe, by_clip: Mapping[VideoRef, Sequence[Example]]) -> list[Example]:
    """With their clues, as far as these need no frames."""
    clue_source = recipe.data.clue_source.build()
    examples = islice((example for asked in by_clip.values() for example in asked), EXAMPLES)
    return [clue_source.attach(example) for example in examples]


# ---------------------------------------------------------------------------------------------------------- frames


class _HourLong(VideoFile):
    """A video that is longer than any budget of frames, with black pictures."""

    seconds_F = np.arange(HOUR_SECONDS * FPS) / FPS
    duration_seconds = float(HOUR_SECONDS)

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        return np.zeros((len(indices), *(size or (self.height, self.width)), 3), dtype=np.uint8)


def frames_of(data: DataSection) -> Frames:
    """Black frames as a long clip has them: as many as the sampler takes of a video of an hour, of the largest size."""
    height, width = frame_size(data.size)
    video = _HourLong(height, width)
    count = len(data.sampler.build().sample(video, 0, len(video.seconds_F) - 1))
    pixels = np.broadcast_to(np.uint8(0), (count, height, width, 3))  # no memory, whatever the size
    return Frames(pixels, np.linspace(0, HOUR_SECONDS, count, endpoint=False), float(HOUR_SECONDS))


def frame_size(size: Size) -> tuple[int, int]:
    """(height, width). With `max_pixels` that of the largest square picture; other shapes have about as many pixels."""
    if size.height is not None and size.width is not None:
        return size.height, size.width
    assert size.max_pixels is not None
    side = max(size.multiple, math.isqrt(size.max_pixels) // size.multiple * size.multiple)
    return side, side


# ----------------------------------------------------------------------------------------------------------- bytes


@dataclass(frozen=True)
class DataBytes:
    prepared: int  # at most, of what is not prepared yet; measured of what is
    prepared_measured: bool  # all of it
    features: int  # of `data.features`, were they kept
    object_store: int  # at most, while clips are prepared


def data_bytes(size: DataSize, frames: Frames, *, feature_bytes: int) -> DataBytes:
    """`feature_bytes`: of a clip's features. Frames are counted raw, 3 bytes a pixel: more than lossless or JPEG files of camera
    pictures take (see docs/plan.md)."""
    raw = frames.frames_THWC.size
    known = [entry.prepared_bytes for entry in size.entries]
    total = sum(entry.clips * raw if entry.prepared_bytes is None else entry.prepared_bytes for entry in size.entries)
    largest = max((entry.clips for entry in size.entries if entry.source != "prepared"), default=0)
    return DataBytes(total, None not in known, size.clips * feature_bytes, largest * OBJECT_BYTES_PER_CLIP)
