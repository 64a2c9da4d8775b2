"""A plug-in for measurements of scale: a dataset of any number of videos, each a file of a few bytes, and a reader that decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from cluenet.contracts import Dataset, Reader, VideoFile
from cluenet.data.batches import FILES_PER_BATCH
from cluenet.folders import write_manifest
from cluenet.prepared import FORMAT, write_index, write_questions
from cluenet.recipe import Recipe
from cluenet.records import Clue, Example, Quarantined, VideoRef, content_hash
from cluenet.registry import ComponentConfig, register

SIDE = 16
"""Height and width of a frame in pixels."""


@register.dataset("synthetic")
class SyntheticRows(Dataset):
    """A question about each of the first videos of a folder, which `write_videos` makes."""

    class Config(Dataset.Config):
        folder: str = Field(..., description="Folder of the videos.")
        videos: int = Field(..., ge=1, description="How many.")

    config: Config

    def rows(self) -> Iterator[Example | Quarantined]:
        return (question(self.config.folder, number) for number in range(self.config.videos))

    def sources(self) -> list[str]:
        return []


def question(folder: str, number: int) -> Example:
    video, options = VideoRef(video_path(folder, number)), ("the red one", "the blue one", "the green one", "none")
    clue = Clue("red hits blue", 0.2, 0.4, concepts={"who": "red", "what": "hits", "whom": "blue"})
    return Example(
        f"synthetic-{number:08d}", "synthetic", video, "which one moves after the collision ?", options, number % 4, clues=(clue,)
    )  # fmt: skip


def video_path(folder: str, number: int) -> str:
    return f"{folder}/{number // 1000:05d}/{number:08d}.mp4"


def write_videos(folder: Path, count: int) -> Path:
    """Files that differ, a thousand in a folder; those that are there stay."""
    for number in range(count):
        path = Path(video_path(str(folder), number))
        if number % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(str(number))
    return folder


class _Blank(VideoFile):
    seconds_F = np.arange(2) / 2
    duration_seconds = 1.0
    width = height = SIDE

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        return np.zeros((len(indices), *(size or (SIDE, SIDE)), 3), dtype=np.uint8)


@register.reader("blank")
class BlankReader(Reader):
    """Two black frames, whatever the file."""

    class Config(ComponentConfig):
        pass

    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        return _Blank()


def recipe_of(folder: Path, videos: int, **data: object) -> Recipe:
    """Of the first `videos` videos of `folder`/videos, prepared in `folder`/store-<videos>. `data`: more of that section."""
    section = {
        "reader": "blank", "fallback_reader": None, "sampler": {"name": "uniform", "frames": 2},
        "size": {"height": SIDE, "width": SIDE},
        "train": [{"name": "synthetic", "folder": str(folder / "videos"), "videos": videos}], **data,
    }  # fmt: skip
    return Recipe.from_dict(
        {"plugins": ["helpers.synthetic"], "store": str(folder / f"store-{videos}"), "data": section}
    )


def key_of(number: int) -> str:
    return content_hash("synthetic", number)


def questions_on_disk(folder: Path, clips: int) -> Path:
    """A prepared set of `clips` clips with a question each, without their frames."""
    write_index(
        folder,
        {
            key_of(n): (f"part-{n // FILES_PER_BATCH:05d}-{key_of(n)[:12]}.parquet", n % FILES_PER_BATCH)
            for n in range(clips)
        },
    )
    write_questions(folder, ((question("videos", n), key_of(n)) for n in range(clips)))
    rows = {"in": clips, "ready": clips, "quarantined": 0}
    write_manifest(folder, {"format": FORMAT, "rows": rows, "labels": {"clues": clips}})
    return folder
