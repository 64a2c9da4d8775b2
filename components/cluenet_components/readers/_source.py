"""What every reader checks first, and folders of frame images, which are read alike by all."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cluenet.contracts import VideoFile
from cluenet.errors import MediaError

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def checked(path: str) -> Path:
    """The path, if there is something to open. Raises MediaError: missing, empty."""
    local = Path(path)
    if not local.exists():
        raise MediaError("missing", f"{path}: no such file or folder")
    if local.is_file() and local.stat().st_size == 0:
        raise MediaError("empty", f"{path}: the file has no bytes")
    return local


class FrameFolder(VideoFile):
    """A folder of numbered images in natural order (`2.jpg` before `10.jpg`), `fps` of them per second."""

    def __init__(self, folder: Path, fps: float | None):
        if fps is None or fps <= 0:
            raise MediaError("no_fps", f"{folder}: a folder of frames needs its rate; set `fps` in the dataset's settings")
        self._files = sorted((f for f in folder.iterdir() if f.suffix.lower() in IMAGES), key=lambda f: natural(f.name))
        if not self._files:
            raise MediaError("empty", f"{folder}: no frame images ({', '.join(sorted(IMAGES))})")
        self.seconds_F = np.arange(len(self._files)) / fps
        self.duration_seconds = len(self._files) / fps
        self.height, self.width = self._read(0, None).shape[:2]

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        own = (self.height, self.width)
        pictures = {i: self._read(i, size or own) for i in set(indices)}
        return np.stack([pictures[i] for i in indices])

    def _read(self, index: int, size: tuple[int, int] | None) -> np.ndarray:
        try:
            with Image.open(self._files[index]) as image:
                picture = image.convert("RGB")
                if size is not None and (picture.height, picture.width) != size:
                    picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
                return np.asarray(picture)
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise MediaError("corrupt", f"{self._files[index]}: {error}") from error


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which numbers inside names count as numbers."""
    parts = re.findall(r"\d+|\D+", os.path.splitext(name)[0])
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
