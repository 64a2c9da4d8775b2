"""Reader `pyav`: FFmpeg through PyAV, on every platform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from pydantic import Field

from cluenet.contracts import Reader, VideoFile
from cluenet.errors import MediaError
from cluenet.registry import ComponentConfig, register
from cluenet_components.readers._index import FrameIndex, KeyFrame, index_of, media_errors, open_container
from cluenet_components.readers._small import decode_small, index_of_small, is_small
from cluenet_components.readers._source import open_path

Strategy = Literal["auto", "seek", "scan"]
SEEK_FRAMES = 5
"""What a seek costs, in decoded frames: flushing, and filling the reordering delay again (measured 4 to 6)."""
TURNS = {0: (), 90: (("transpose", "cclock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "clock"),)}
"""FFmpeg filters that turn a picture counter-clockwise by so many degrees."""


@register.reader("pyav")
class PyavReader(Reader):
    """PyAV; frame-exact in every container, whatever its frame rate, B-frames, open GOPs or edit lists."""

    class Config(ComponentConfig):
        strategy: Strategy = Field(
            "auto",
            description="seek: start at the key frame before each wanted frame; scan: decode from the start; "
            "auto: whichever decodes fewer frames.",
        )

    config: Config

    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        return open_path(path, fps, lambda file: PyavFile(file, self.config.strategy))


@dataclass(frozen=True)
class Run:
    """One stretch of decoding. start: where to seek to, None for the start of the file. wanted: ascending frames."""

    start: KeyFrame | None
    wanted: tuple[int, ...]


def plan(index: FrameIndex, wanted: Sequence[int], strategy: Strategy) -> list[Run]:
    """Stretches that decode the `wanted` frames (ascending, distinct) in as few frames as the strategy allows."""
    runs: list[tuple[KeyFrame | None, list[int]]] = []
    position = 0  # the frame that decoding on would give next
    for frame in wanted:
        key = None if strategy == "scan" else index.key_before(frame)
        skipped = key.rank - position if key else 0
        if key is not None and skipped > (SEEK_FRAMES if strategy == "auto" else 0):
            runs.append((key, [frame]))
        elif runs:
            runs[-1][1].append(frame)
        else:
            runs.append((index.start, [frame]))
        position = frame + 1
    return [Run(start, tuple(frames)) for start, frames in runs]


class PyavFile(VideoFile):
    """Decodes by plan and proves every frame by its presentation time; what a seek did not give is found by scanning."""

    def __init__(self, path: Path, strategy: Strategy):
        self.path, self.strategy = path, strategy
        self._opened: tuple[InputContainer, VideoStream] | None = None
        self._kept: list[VideoFrame] = []  # all frames of a small file, in order, which is closed then
        try:
            self.index = index = self._read()
        except BaseException:
            self.close()
            raise
        self.seconds_F, self.duration_seconds = index.seconds_F, index.duration_seconds
        self.width, self.height = index.width, index.height
        self._numbers = {ticks: number for number, ticks in enumerate(index.ticks_F.tolist())}
        self.frames_decoded = 0  # for `frames`, the dropped ones included; a small file's are before

    def _read(self) -> FrameIndex:
        """Opens the file; a small one is decoded and closed at once, and opened again if that does not give every frame."""
        self._opened = open_container(self.path)
        if self.strategy == "auto" and is_small(*self._opened):
            self._kept = decode_small(*self._opened)
            index = index_of_small(self._opened[1], self._kept) if self._kept else None
            self._opened[0].close()
            self._opened = None
            if index is not None:
                return index
            self._opened = open_container(self.path)
        return index_of(self.path, *self._opened)

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        height, width = size or (self.height, self.width)
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        pictures = Pictures(wanted.tolist(), width, height)
        self._find(wanted.tolist(), pictures)
        if lost := pictures.missing():
            where = f"frame {lost[0]} at {self.seconds_F[lost[0]]:.3f} s"
            raise MediaError(
                "corrupt", f"{self.path}: {where} cannot be decoded without damage; fetch or encode it again"
            )
        frames_THWC = pictures.finish()
        as_asked = np.array_equal(places, np.arange(len(wanted)))
        return frames_THWC if as_asked else frames_THWC[places]

    def close(self) -> None:
        self._kept = []
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _find(self, wanted: Sequence[int], pictures: Pictures) -> None:
        if self._kept:
            with media_errors(self.path):
                for number in wanted:
                    pictures.add(number, self._kept[number])
            return
        for run in plan(self.index, wanted, self.strategy):
            self._decode(run, pictures)
        if missing := pictures.missing():
            self._decode(Run(None, missing), pictures)

    def _decode(self, run: Run, pictures: Pictures) -> None:
        """Adds the wanted frames of one run that come out undamaged."""
        wanted = set(run.wanted)
        damaged_until = -1  # damage spreads to the next key frame
        with media_errors(self.path):
            for number, frame in self._numbered(run):
                self.frames_decoded += 1
                if frame.is_corrupt:
                    damaged_until = self._next_key(number)
                if number in wanted and number >= damaged_until:
                    pictures.add(number, frame)
                if number >= run.wanted[-1]:
                    break

    def _numbered(self, run: Run) -> Iterator[tuple[int, VideoFrame]]:
        """Decoded frames from the run's start on, with their numbers: by time, or by counting where times say nothing."""
        if run.start is None:
            self.close()  # opening again is the one way to the start that every container allows
        if self._opened is None:
            self._opened = open_container(self.path)
        container, stream = self._opened
        if run.start is not None:
            container.seek(run.start.seek_ticks, stream=stream)
        if not self.index.is_timed:
            yield from enumerate(container.decode(stream))
            return
        for frame in container.decode(stream):
            number = self._numbers.get(frame.pts)
            if number is not None:
                yield number, frame

    def _next_key(self, frame: int) -> int:
        return next((key.rank for key in self.index.keys if key.rank > frame), len(self.index))


IDLE: dict[tuple[Any, ...], av.filter.Graph] = {}
"""Filter graphs between two uses, by what they were made for: making one takes as long as ten small pictures. `pop` hands each to
one thread only, and one that fails does not come back. A graph has memory for pictures of its sizes."""
IDLE_AT_MOST, IDLE_PIXELS = 8, 2**18


class Pictures:
    """Decoded frames upright, in RGB and to size, by one FFmpeg filter graph (bilinear, as decord does)."""

    def __init__(self, numbers: Sequence[int], width: int, height: int):
        self.frames_THWC = np.empty((len(numbers), height, width, 3), np.uint8)  # in the order of `numbers`
        self._width, self._height = width, height
        self._places = {number: place for place, number in enumerate(numbers)}
        self._found: set[int] = set()
        self._graph: av.filter.Graph | None = None
        self._made_for: tuple[Any, ...] = ()  # width, height, and how frames are stored: width, height, format, ...

    def missing(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted(self._places.keys() - self._found))

    def add(self, number: int, frame: VideoFrame) -> None:
        made_for = (
            self._width, self._height, frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range,
            frame.rotation,
        )  # fmt: skip
        if made_for != self._made_for:  # a stream may change its size or format half-way
            self._graph, self._made_for = IDLE.pop(made_for, None) or self._graph_for(frame), made_for
        assert self._graph is not None
        self._graph.push(frame)
        self.frames_THWC[self._places[number]] = self._graph.pull().to_ndarray()
        self._found.add(number)

    def finish(self) -> np.ndarray:
        """uint8 [T, H, W, 3], when none is missing; a small filter graph is free for the next file then."""
        if self._graph is not None and max(prod(self._made_for[:2]), prod(self._made_for[2:4])) <= IDLE_PIXELS:
            IDLE[self._made_for] = self._graph
            for oldest in list(IDLE)[:-IDLE_AT_MOST]:
                IDLE.pop(oldest, None)
        return self.frames_THWC

    def _graph_for(self, frame: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        last = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )  # fmt: skip
        scale = ("scale", f"{self._width}:{self._height}:flags=bilinear")
        for name, arguments in (*TURNS[frame.rotation % 360], scale, ("format", "rgb24"), ("buffersink", "")):
            step = graph.add(name, arguments or None)
            last.link_to(step)
            last = step
        graph.configure()
        return graph
