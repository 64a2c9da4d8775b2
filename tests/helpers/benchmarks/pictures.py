"""Small frames whose content differs from video to video, so that no two miniatures share one by chance."""

from __future__ import annotations

import zlib

import numpy as np

from cluenet.testing.videos import counting_frames

SIDE = 64
"""Of smaller frames with edges in odd columns FFmpeg does not always make the same bytes."""


def frames_of(name: str, count: int) -> np.ndarray:
    """uint8 RGB [count, SIDE, SIDE, 3]: counting frames, shifted by what the video's name says."""
    shift = divmod(zlib.crc32(name.encode()) % SIDE**2, SIDE)
    return np.roll(counting_frames(count, height=SIDE, width=SIDE), shift, axis=(1, 2))
