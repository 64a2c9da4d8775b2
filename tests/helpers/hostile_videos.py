"""MP4 files whose headers lie, and functions that end or fill the process that reads a file."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluenet.config.serve import Limits
from cluenet.errors import MediaError
from cluenet.serve.containers import read_facts


def box_place(content: bytes, name: bytes) -> int:
    """Where the body of the first box of this name begins (ISO/IEC 14496-12)."""
    place = content.index(name)
    return place + 4


def patched(video: Path, path: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """A copy with bytes replaced: (box, place in its body, bytes)."""
    content = bytearray(video.read_bytes())
    for box, offset, new in changes:
        place = box_place(content, box) + offset
        content[place : place + len(new)] = new
    path.write_bytes(content)
    return path


def with_size(video: Path, path: Path, width: int, height: int) -> Path:
    """In the track header (16.16 fixed point) and in the sample entry of H.264."""
    return patched(
        video, path, (b"tkhd", 76, struct.pack(">II", width << 16, height << 16)),
        (b"avc1", 24, struct.pack(">HH", width, height)),
    )  # fmt: skip


def with_png_size(video: Path, path: Path, width: int, height: int) -> Path:
    """In the header of every PNG in it: pictures that would unpack to far more than they take."""
    content = bytearray(video.read_bytes())
    place = content.find(b"IHDR")
    while place >= 0:
        content[place + 4 : place + 12] = struct.pack(">II", width, height)
        content[place + 17 : place + 21] = struct.pack(">I", zlib.crc32(content[place : place + 17]))
        place = content.find(b"IHDR", place + 4)
    path.write_bytes(content)
    return path


def with_frames(video: Path, path: Path, frames: int) -> Path:
    """A table of `frames` samples of one byte each, all in one time-to-sample entry."""
    return patched(
        video, path, (b"stsz", 4, struct.pack(">II", 1, frames)), (b"stts", 4, struct.pack(">II", 1, frames)),
        (b"stsc", 4, struct.pack(">IIII", 1, 1, frames, 1)),
    )  # fmt: skip


def with_pause(video: Path, path: Path, ticks: int) -> Path:
    """So many ticks from one frame to the next."""
    return patched(video, path, (b"stts", 12, struct.pack(">I", ticks)))


def end_process(*_: Any) -> None:
    os.abort()


def peak_mib(path: str, limits: Limits) -> float:
    """Most memory that this process has had so far, after reading the file (Linux: `ru_maxrss` is in KiB)."""
    with suppress(MediaError):
        read_facts(path, limits)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill_memory(*_: Any) -> None:
    kept = [bytes(1 << 28) for _ in range(40)]
    raise AssertionError(len(kept))
