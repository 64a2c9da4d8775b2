"""What a video's container says about its frames, read once with PyAV: the same for every reader, so that they agree.

Reading it costs a pass over the packets and the decoding of one frame. Frames are numbered in the order they are shown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cluenet.errors import MediaError
from cluenet_components.readers._h264 import nal_length_size, starts_afresh

UNTIMED_FORMATS = frozenset({"avi", "mpeg", "mpegvideo", "m4v", "h264", "hevc"})
"""Containers that do not store when each frame is shown: FFmpeg infers it while decoding, and wrongly after a seek."""
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
INDEXED_FORMATS = frozenset({MP4, "matroska,webm"})
"""Containers in which FFmpeg seeks by a table of packets, and exactly."""


@dataclass(frozen=True)
class KeyFrame:
    """A place where decoding can start."""

    rank: int  # number of the first frame shown not before it
    seek_ticks: int  # what to hand to `seek`


@dataclass(frozen=True)
class FrameIndex:
    """Every frame that is shown, in order of presentation."""

    format: str  # FFmpeg's name of the container
    ticks_F: np.ndarray  # int64 [F], presentation times in units of the stream's time base, strictly ascending
    seconds_F: np.ndarray  # float64 [F], from the first frame shown
    duration_seconds: float
    width: int  # as shown, after rotation
    height: int
    keys: tuple[KeyFrame, ...]  # ascending; empty where frames can only be found by counting, or are all kept
    is_timed: bool  # decoded frames can be told apart by their ticks
    is_closed: bool  # surely: decoding from a key frame gives every later frame (no open GOPs, hidden frames, refresh)

    def __len__(self) -> int:
        return len(self.ticks_F)

    @property
    def start(self) -> KeyFrame | None:
        """The first frame, where a seek to it is as good as opening the file again; else None."""
        first = self.keys[0] if self.keys and self.format in INDEXED_FORMATS else None
        return first if first and first.rank == 0 else None

    def key_before(self, frame: int) -> KeyFrame | None:
        """The last key frame shown not after `frame`; None when decoding must start with the file."""
        place = bisect_right(self.keys, frame, key=lambda key: key.rank)
        return self.keys[place - 1] if place else None


class _Packet(NamedTuple):  # made for every frame of a file: a dataclass takes several times as long
    ticks: int | None
    seek_ticks: int | None
    duration: int
    is_key: bool
    is_hidden: bool  # an edit list leaves it out
    is_gradual: bool  # H.264: a key frame after which the picture only recovers step by step


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Turns what FFmpeg or the disk says about `path` into MediaError("corrupt")."""
    try:
        yield
    except (av.error.FFmpegError, EOFError, OSError) as error:
        raise MediaError("corrupt", f"{path}: {error}; fetch or encode it again") from error


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """The file and its main video stream, decoded by one thread. Raises MediaError: corrupt, no_video_stream."""
    av.logging.set_level(av.logging.FATAL)  # what matters becomes a MediaError; a line per bad packet floods a log
    with media_errors(path):
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        form = "mp4" if is_mp4 else None  # None asks all of FFmpeg's 300, which takes 0.05 ms
        container = av.open(str(path), format=form, metadata_errors="replace")
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        container.close()
        raise MediaError("no_video_stream", f"{path}: no video in this file (sound or a cover picture only)")
    stream.thread_count, stream.thread_type = 1, "NONE"
    return container, stream


def format_of(container: InputContainer) -> str:
    """FFmpeg's name of the container; PyAV says what the file was opened as."""
    return MP4 if container.format.name == "mp4" else container.format.name


def read_index(path: Path) -> FrameIndex:
    """Raises MediaError: no_video_stream, corrupt, no_times."""
    container, stream = open_container(path)
    with container:
        return index_of(path, container, stream)


def index_of(path: Path, container: InputContainer, stream: VideoStream) -> FrameIndex:
    """Of a file that was just opened, and is read to its end. Raises MediaError: corrupt, no_times."""
    with media_errors(path):
        packets, first = _read_packets(path, container, stream)
    form, base = format_of(container), float(stream.time_base or 0)
    rate = stream.guessed_rate or stream.average_rate
    shown = [packet for packet in packets if not packet.is_hidden]
    ticks = [packet.ticks for packet in shown if packet.ticks is not None]
    is_timed = form not in UNTIMED_FORMATS and first.pts is not None and len(set(ticks)) == len(shown)
    ticks_F = _shown(ticks, first.pts or 0) if is_timed else _decoded_ticks(path)
    keys = _keys(packets, ticks_F) if is_timed else ()
    width, height = upright_size(first)
    seconds_F = (ticks_F - ticks_F[0]) * base
    return FrameIndex(
        format=form,
        ticks_F=ticks_F,
        seconds_F=seconds_F,
        duration_seconds=float(seconds_F[-1]) + last_duration(_duration_of(packets, ticks_F), base, rate),
        width=width,
        height=height,
        keys=keys,
        is_timed=is_timed,
        is_closed=is_timed and len(packets) == len(ticks_F) and _is_closed(packets, ticks_F),
    )


def _read_packets(path: Path, container: InputContainer, stream: VideoStream) -> tuple[list[_Packet], VideoFrame]:
    """All packets as stored, and the first frame the decoder shows."""
    expected = len(stream.index_entries) if format_of(container) == MP4 else 0  # others list key frames only
    h264, length_size = stream.codec_context.name == "h264", nal_length_size(stream.codec_context.extradata)
    packets: list[_Packet] = []
    first: VideoFrame | None = None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise MediaError("corrupt", f"{path}: broken off or damaged at frame {len(packets)}; fetch it again")
        if first is None:
            first = next(iter(packet.decode()), None)
        if packet.size:
            seek = packet.pts if packet.dts is None else packet.dts
            gradual = h264 and packet.is_keyframe and not starts_afresh(bytes(packet), length_size)
            packets.append(
                _Packet(packet.pts, seek, packet.duration or 0, packet.is_keyframe, packet.is_discard, gradual)
            )
    if len(packets) < expected:
        message = f"{path}: broken off: {len(packets)} of the {expected} frames in its table are there; fetch it again"
        raise MediaError("corrupt", message)
    if first is None:
        raise MediaError(
            "corrupt", f"{path}: none of its {len(packets)} packets can be decoded; fetch or encode it again"
        )
    return packets, first


def _shown(ticks: list[int], first: int) -> np.ndarray:
    """Ticks of what the decoder can show: a stream cut out of a longer one may start with frames that lack a reference."""
    ticks_F = np.array(sorted(ticks), dtype=np.int64)
    return ticks_F[ticks_F >= first]


def _decoded_ticks(path: Path) -> np.ndarray:
    """Ticks found by decoding the whole file."""
    container, stream = open_container(path)
    with container, media_errors(path):
        form = format_of(container)
        found = [frame.dts if frame.pts is None else frame.pts for frame in container.decode(stream)]
    ticks = {tick for tick in found if tick is not None}
    if len(ticks) < len(found):
        message = f"{path}: {form} without presentation times; rewrite it: ffmpeg -i FILE -r 25 NEW.mp4"
        raise MediaError("no_times", message)
    return np.array(sorted(ticks), dtype=np.int64)


def _keys(packets: list[_Packet], ticks_F: np.ndarray) -> tuple[KeyFrame, ...]:
    places = sorted(
        (packet.ticks, packet.seek_ticks)
        for packet in packets
        if packet.is_key and not packet.is_gradual and packet.ticks is not None and packet.seek_ticks is not None
    )
    return tuple(KeyFrame(int(np.searchsorted(ticks_F, shown)), seek) for shown, seek in places)


def _is_closed(packets: list[_Packet], ticks_F: np.ndarray) -> bool:
    keys = [(place, packet) for place, packet in enumerate(packets) if packet.is_key]
    return all(ticks_F[place] == packet.ticks and not packet.is_gradual for place, packet in keys)


def _duration_of(packets: list[_Packet], ticks_F: np.ndarray) -> int:
    """Ticks that the last frame is shown, as stored; 0 where that is not."""
    return max((packet.duration for packet in packets if packet.ticks == ticks_F[-1]), default=0)


def last_duration(ticks: int | None, base: float, rate: Fraction | None) -> float:
    """Seconds that the last frame is shown: as stored, else one frame of the guessed rate."""
    return ticks * base if ticks else float(1 / rate) if rate else 0.0


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height as shown."""
    return (frame.width, frame.height) if frame.rotation % 180 == 0 else (frame.height, frame.width)
