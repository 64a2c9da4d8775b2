"""What all readers share before a decoder sees a file: a path that is there, or a folder of frame images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cluenet.contracts import VideoFile
from cluenet.errors import MediaError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def open_path(path: str, fps: float | None, open_file: Callable[[Path], VideoFile]) -> VideoFile:
    """A folder as `ImageFolder`, a file through `open_file`.

    Raises MediaError: missing, unreadable, empty, no_fps (a folder without a rate), fps_of_file (a file given one).
    """
    found = Path(path).expanduser().absolute()  # absolute: `a:b.mp4` would be a protocol to FFmpeg
    try:
        if found.is_dir():
            return ImageFolder(found, fps)
        with found.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError:
        raise MediaError(
            "missing", f"{found}: no such file on this machine; check the dataset's video folder"
        ) from None
    except OSError as error:
        raise MediaError("unreadable", f"{found}: {error.strerror or error}; check its permissions and disk") from None
    if is_empty:
        raise MediaError("empty", f"{found}: the file has 0 bytes; fetch it again")
    if fps is not None:
        raise MediaError(
            "fps_of_file", f"{found}: fps={fps} is for folders of frames; a video has its own times, leave it out"
        )
    return open_file(found)


class ImageFolder(VideoFile):
    """Numbered images as a video: image n is shown (n - first n) / fps seconds after the first one.

    A gap in the numbers is a gap in time. Images are resized with Pillow's bilinear filter.
    """

    def __init__(self, folder: Path, fps: float | None):
        self.folder = folder
        self._numbers, self._files = _numbered_images(folder)
        if fps is None or not fps > 0:
            message = (
                f"{folder}: a folder of frames carries no times and fps is {fps}; give the dataset's frames per second"
            )
            raise MediaError("no_fps", message)
        self.seconds_F = (np.array(self._numbers, dtype=np.float64) - self._numbers[0]) / fps
        self.duration_seconds = float(self.seconds_F[-1] + 1 / fps)
        self.height, self.width = self._read(0, None).shape[:2]

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        height, width = size or (self.height, self.width)
        distinct, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        return np.stack([self._read(index, (width, height)) for index in distinct])[places]

    def _read(self, index: int, size: tuple[int, int] | None) -> np.ndarray:
        """uint8 RGB [H, W, 3]. size: (width, height)."""
        try:
            with Image.open(self._files[index]) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise MediaError("corrupt", f"{self._files[index]}: not a readable image: {error}") from error
        if size is not None and image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image)


def _numbered_images(folder: Path) -> tuple[list[int], list[Path]]:
    """Numbers and files in the order of the numbers: the last digits of each image's name."""
    found: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        digits = re.findall(r"\d+", file.stem)
        if not digits:
            raise MediaError("corrupt", f"{file}: an image without a number among frames; name frames like 00001.jpg")
        number = int(digits[-1])
        if number in found:
            raise MediaError("corrupt", f"{folder}: {found[number].name} and {file.name} are both frame {number}")
        found[number] = file
    if not found:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise MediaError("empty", f"{folder}: no frame images ({kinds}) in this folder")
    numbers = sorted(found)
    return numbers, [found[number] for number in numbers]
