"""Small files, decoded whole as they are opened, which spares them a second pass over their packets."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cluenet_components.readers._index import MP4, FrameIndex, format_of, last_duration, upright_size

SMALL_PIXELS, SMALL_FRAMES = 2**18, 1024
"""At most; the pixels are those of all frames together."""


def is_small(container: InputContainer, stream: VideoStream) -> bool:
    """By its table of frames, which other containers than MP4 and QuickTime do not have."""
    frames = len(stream.index_entries) if format_of(container) == MP4 else 0
    return frames <= SMALL_FRAMES and 0 < frames * stream.width * stream.height <= SMALL_PIXELS


def decode_small(container: InputContainer, stream: VideoStream) -> list[VideoFrame]:
    """All frames of a small file that was just opened, in the order they are shown.

    An empty list where one is damaged, hidden or missing, or there are more or larger ones than the file says: such a file must
    be opened again, and read by `index_of`.
    """
    frames: list[VideoFrame] = []
    room, ticks, expected = SMALL_PIXELS, -inf, len(stream.index_entries)
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                return []
            for frame in packet.decode():
                room -= frame.width * frame.height
                if room < 0 or len(frames) == expected or frame.is_corrupt or frame.pts is None or frame.pts <= ticks:
                    return []
                frames.append(frame)
                ticks = frame.pts
    except (av.error.FFmpegError, EOFError):
        return []
    return frames if len(frames) == expected else []


def index_of_small(stream: VideoStream, frames: Sequence[VideoFrame]) -> FrameIndex:
    """Of the frames that `decode_small` found; without the places where decoding can start, which nobody needs then."""
    base, rate = float(stream.time_base or 0), stream.guessed_rate or stream.average_rate
    width, height = upright_size(frames[0])
    ticks_F = np.array([frame.pts for frame in frames], dtype=np.int64)
    seconds_F = (ticks_F - ticks_F[0]) * base
    return FrameIndex(
        format=MP4,
        ticks_F=ticks_F,
        seconds_F=seconds_F,
        duration_seconds=float(seconds_F[-1]) + last_duration(frames[-1].duration, base, rate),
        width=width,
        height=height,
        keys=(),
        is_timed=True,
        is_closed=False,
    )
