"""Where CLEVRER's videos and annotations lie: `what` is `video` or `annotation`.

The archives unpack to `video_train/video_00000-01000/video_00000.mp4`; the README has `videos/train/...`; copies are flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluenet_components.datasets._places import Places


def folders_of(what: str, split: str) -> Sequence[str]:
    return f"{what}_{split}", f"{what}s/{split}", split


def find(places: Places, what: str, split: str, name: str, scene: int) -> Path | None:
    """The scene's file; None where there is none. Raises as `Places.file`."""
    inner = (_nested(what, name, scene), name)
    return places.file(*(f"{folder}/{place}" for folder in folders_of(what, split) for place in inner))


def expected_place(places: Places, what: str, split: str, name: str, scene: int) -> Path:
    """Where the layout on disk would have it."""
    folders = [places.root / folder for folder in folders_of(what, split)]
    folder = next((path for path in folders if path.is_dir()), folders[0])
    return folder / _nested(what, name, scene)


def _nested(what: str, name: str, scene: int) -> str:
    first = scene // 1000 * 1000
    return f"{what}_{first:05d}-{first + 1000:05d}/{name}"
