"""Where the video of an MVBench question is, and which part of it is asked about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cluenet.records import VideoRef
from cluenet_components.datasets._mvbench_tasks import LAYOUTS, Layout, TaskName
from cluenet_components.datasets._places import Places
from cluenet_components.datasets._rows import BadRowError, number_field

SUFFIXES = (".mp4", ".avi", ".webm", ".mkv")
LATE_VIDEOS = "data0613"
"""Folder, and archive, with the videos of questions that were replaced in June 2024."""


@dataclass(frozen=True)
class Part:
    """A video as a row names it, `QX7ZT.mp4`, and the bounds in seconds of what is asked about, None for all of it."""

    video: str
    start: float | None = None
    end: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], *, is_bounded: bool) -> Part:
        """Raises BadRowError malformed, bad_bounds. Bounds in rows of other tasks do not count, as in the notebook."""
        video = row.get("video")
        if (
            not isinstance(video, str)
            or not video.strip()
            or ".." in PurePosixPath(video).parts
            or video.startswith("/")
        ):
            raise BadRowError("malformed", f"video is {video!r:.80}, must be a path below the task's folder")
        if not is_bounded:
            return cls(video.strip())
        start, end = number_field(row, "start"), number_field(row, "end")
        if start is None or end is None:
            raise BadRowError("malformed", f"{'start' if start is None else 'end'} is missing, a number of seconds")
        if end <= start:
            raise BadRowError("bad_bounds", f"end {end:g} is not after start {start:g}")
        return cls(video.strip(), start, end)

    @property
    def names(self) -> list[str]:
        """Names of the file with the whole video, the likeliest first: without the bounds, with other suffixes."""
        plain, suffix = self._stem, self._suffix
        return [f"{plain}{suffix}", *(f"{plain}{other}" for other in SUFFIXES if other != suffix)]

    @property
    def cut_names(self) -> list[str]:
        """Names of a file that was cut to the bounds: `<video>_<start>_<end>`, or what the row says."""
        stem = self._stem if self.start is None else f"{self._stem}_{self.start}_{self.end}"
        given = [self.video] if Path(self.video).suffix in SUFFIXES else []
        return list(dict.fromkeys([*given, *(f"{name}{other}" for name in (stem, self._stem) for other in SUFFIXES)]))

    @property
    def frame_names(self) -> list[str]:
        """Names of the folder of its frames."""
        return list(dict.fromkeys([self.video, self._stem]))

    @property
    def _suffix(self) -> str:
        """ "" of a folder of frames, and of a video that is named without one."""
        suffix = PurePosixPath(self.video).suffix
        return suffix if suffix in SUFFIXES else ""

    @property
    def _stem(self) -> str:
        """Without suffix, and without the bounds that releases for cut videos append."""
        stem = self.video.removesuffix(self._suffix)
        head, *times = stem.rsplit("_", 2)
        return head if self.start is not None and _same_times(times, (self.start, self.end)) else stem


def _same_times(texts: list[str], times: tuple[float, float | None]) -> bool:
    try:
        return len(texts) == 2 and all(
            math.isclose(float(text), time or 0, abs_tol=1e-6) for text, time in zip(texts, times)
        )
    except ValueError:
        return False


class Videos:
    """The videos below a folder, on disk or in archives."""

    def __init__(self, places: Places):
        self._there = places

    def ref(self, task: TaskName, part: Part) -> VideoRef:
        """The first place that has it: official layout before others, disk before archives; else where it should be.

        Raises BadRowError corrupt_archive; DataError for an unreadable archive and for two different files of one name;
        StorageError.
        """
        for there in (self._there.on_disk, self._there):
            for layout, place in _places(task, part):
                find = there.folder if layout.fps else there.file
                if path := find(place, f"{LATE_VIDEOS}/{place}"):
                    return _ref(path, layout, part)
        root = self._there.root
        used = (layout for layout in LAYOUTS[task] if (root / layout.folder).is_dir())
        layout = next(used, LAYOUTS[task][0])
        return _ref(root / _names(layout, part)[0], layout, part)


def _places(task: TaskName, part: Part) -> Iterator[tuple[Layout, str]]:
    return ((layout, place) for layout in LAYOUTS[task] for place in _names(layout, part))


def _names(layout: Layout, part: Part) -> list[str]:
    names = part.cut_names if layout.is_cut else part.frame_names if layout.fps else part.names
    return [f"{layout.folder}/{name}" for name in names]


def _ref(path: Path, layout: Layout, part: Part) -> VideoRef:
    if part.start is None or part.end is None or layout.is_cut:
        return VideoRef(str(path), fps=layout.fps)
    if layout.fps:
        return _frames_ref(path, layout.fps, part.start, part.end)
    return VideoRef(str(path), part.start, part.end)


def _frames_ref(folder: Path, fps: float, start: float, end: float) -> VideoRef:
    """The frames of the notebook's `read_frame`: from number max(1, round(start * fps)) to round(end * fps), both shown.

    A reader shows frame n at (n - first number) / fps seconds; half a frame more at the end keeps the last one in.
    """
    zero = _first_number(folder)
    first = max(1, zero, round(start * fps))
    last = max(first, round(end * fps))
    return VideoRef(str(folder), (first - zero) / fps, (last - zero + 0.5) / fps, fps)


def _first_number(folder: Path) -> int:
    """Of the frames in the folder; 1, the official one, where there is no folder."""
    names = folder.iterdir() if folder.is_dir() else ()
    return min((int(name.stem) for name in names if name.stem.isdigit()), default=1)
