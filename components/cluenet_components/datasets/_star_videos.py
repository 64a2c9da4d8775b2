"""Charades videos as STAR names them: `<id>.mp4`, a file, or a folder of frames as Action Genome's tool dumps them.

The tool numbers frames from 1 at the video's own rate, so that frame key k is shown (k - 1) / fps seconds after the start.
It keeps annotated frames alone unless told otherwise: a folder then begins later than the video, and its clock, which
starts with its first image, is that much behind.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
from PIL import Image

from cluenet.errors import DataError
from cluenet.records import VideoRef
from cluenet_components._files import reading
from cluenet_components.datasets._places import Places
from cluenet_components.datasets._rows import BadRowError
from cluenet_components.datasets._videos import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Look:
    """What the first picture of a video tells."""

    size: tuple[int, int]  # width, height in pixels, as shown
    fps: float | None
    number: int = 1  # of the first picture, as frame keys count


class StarVideo:
    """One video. `given_fps`: what is known besides the file itself. Times are on the clock of the file or folder."""

    def __init__(self, path: Path, given_fps: float | None):
        self.path, self.is_folder = path, path.is_dir()
        self._given_fps = given_fps
        if self.is_folder and given_fps is None:
            raise BadRowError(
                "no_fps", f"{path} is a folder of frames and nothing says their rate; set star.fps_file or star.fps"
            )

    @cached_property
    def look(self) -> Look | None:
        """None for a video that cannot be read: why is told when it is opened."""
        return _look_at_folder(self.path) if self.is_folder else _look_at_file(self.path)

    @property
    def fps(self) -> float | None:
        return self._given_fps or (self.look.fps if self.look else None)

    def seconds(self, key: int) -> float:
        """When the frame with this key is shown; for a video with `look` and `fps`."""
        return (key - (self.look.number if self.look else 1)) / (self.fps or 1.0)

    def clip(self, start: float, end: float) -> VideoRef:
        """From `start` to `end` seconds of the original. Raises BadRowError bad_bounds."""
        behind = self.seconds(1) if self.is_folder else 0.0
        try:
            return VideoRef(
                str(self.path), max(0.0, start + behind), end + behind, self.fps if self.is_folder else None
            )
        except ValueError as error:
            held = f"; the folder begins {-behind:g} s after the video" if behind else ""
            raise BadRowError("bad_bounds", f"start {start:g}, end {end:g}: {error}{held}") from None


class StarVideos:
    """Videos of one dataset. `rates`: STAR's `video_fps`, if there is one; `fps`: of a folder of frames that it does not name.

    Raises DataError for a file of rates that cannot be read.
    """

    def __init__(self, places: Places, rates: Path | None, fps: float | None):
        self._places, self._rates_file, self._fps = places, rates, fps
        self._rates = read_rates(rates) if rates else {}
        self._known: dict[str, StarVideo] = {}

    def of(self, video_id: str) -> StarVideo:
        """Raises BadRowError no_fps, bad_fps and corrupt_archive, DataError for two different files of one name."""
        if video_id not in self._known:
            name = f"{video_id}.mp4"
            path = self._places.file(name) or self._places.folder(name) or self._places.root / name
            self._known[video_id] = StarVideo(path, self._rate(name) or (self._fps if path.is_dir() else None))
        return self._known[video_id]

    def _rate(self, name: str) -> float | None:
        rate = self._rates.get(name)
        if rate is None:
            return None
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise BadRowError("bad_fps", f"{self._rates_file}: {name} is {rate!r:.80}, must be a number > 0")
        return float(rate)


def _look_at_file(path: Path) -> Look | None:
    try:
        with av.open(str(path.absolute())) as file:
            frame = next(file.decode(video=0))
            rate = file.streams.video[0].average_rate
    except (av.FFmpegError, OSError, StopIteration, IndexError):
        return None
    size = (frame.width, frame.height) if frame.rotation % 180 == 0 else (frame.height, frame.width)
    return Look(size, float(rate) if rate else None)


def _look_at_folder(folder: Path) -> Look | None:
    """Numbers are the last digits of names, as readers take them."""
    with reading(folder):
        images = [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES]
    numbered = {int(digits[-1]): image for image in images if (digits := re.findall(r"\d+", image.stem))}
    if not numbered:
        return None
    first = min(numbered)
    try:
        with Image.open(numbered[first]) as image:
            return Look(image.size, None, first)
    except OSError:
        return None


class _Plain(pickle.Unpickler):
    """Dictionaries, texts and numbers alone: a pickle that names code could run it."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")


def read_rates(file: Path) -> dict[str, Any]:
    """STAR's `video_fps`: {"<id>.mp4": fps}, as a pickle or as JSON, told apart by content. Raises DataError."""
    with reading(file):
        content = file.read_bytes()
    try:
        rates = json.loads(content) if content.lstrip()[:1] == b"{" else _Plain(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(
            f"{file}: is neither JSON nor a pickle of plain values: {error}. Download it again, or write it as JSON: "
            '{"QX7ZT.mp4": 30.0}.'
        ) from error
    if not isinstance(rates, dict):
        raise DataError(f'{file}: must be an object like {{"QX7ZT.mp4": 30.0}}, not {rates!r:.80}.')
    return rates
