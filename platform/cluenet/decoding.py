"""From a video file to the sampled frames of its clips, and frames to bytes and back. One opening per file. Ray-free."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cluenet.config.data import DataSection, Size
from cluenet.contracts import Sampler, VideoFile
from cluenet.errors import MediaError
from cluenet.records import Frames, content_hash
from cluenet.registry import register

ClipBounds = tuple[float, float | None]
JPEG_QUALITY = 95
SAME_MOMENT = 1e-6  # seconds: times are computed in floating point


@dataclass(frozen=True)
class FramePolicy:
    """How frames are chosen, sized and stored: what training, evaluation and serving must agree on. Plain values."""

    reader: Mapping[str, Any]
    fallback: Mapping[str, Any] | None
    sampler: Mapping[str, Any]
    size: Mapping[str, Any]
    codec: str

    @classmethod
    def from_section(cls, data: DataSection) -> FramePolicy:
        fallback = data.fallback_reader.to_dict() if data.fallback_reader else None
        return cls(data.reader.to_dict(), fallback, data.sampler.to_dict(), data.size.model_dump(), data.codec)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FramePolicy:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fingerprint(self) -> str:
        """Readers agree on pixels, so only what changes the frames counts: sampler, size, codec."""
        sampler, size = register.sampler.parse(self.sampler), Size(**self.size)  # spells out every default
        return content_hash("frames", sampler.to_dict(), sampler.component.version, size.model_dump(), self.codec)

    def readers(self) -> list[str]:
        """Names, in the order in which they are tried."""
        return [self.reader["name"], *([self.fallback["name"]] if self.fallback else [])]


def decode_clips(
    path: str,
    fps: float | None,
    clips: Sequence[ClipBounds],
    policy: FramePolicy,
    *,
    reader: Mapping[str, Any] | None = None,
) -> list[Frames | MediaError]:
    """Frames of every (start_seconds, end_seconds) of one file, in this order, or MediaError `outside` for a clip without any.

    The file is opened once and the frames of all clips are decoded in one pass; a clip holds the frames whose time lies in
    [start, end], so nothing past its end is seen. `reader`: settings of another reader than the policy's first.
    Raises MediaError when the file as a whole cannot be read, or any frame of it while the policy has a fallback to try;
    the last reader delivers the clips that are whole, with MediaError for those that are damaged.
    """
    sampler = register.sampler.parse(policy.sampler).build()
    with register.reader.parse(reader or policy.reader).build().open(path, fps=fps) as video:
        size = target_size(video.height, video.width, Size(**policy.size))
        chosen = [_choose(video, sampler, clip, path) for clip in clips]
        needed = sorted({i for indices in chosen if isinstance(indices, list) for i in indices})
        if not needed:
            return [error for error in chosen if isinstance(error, MediaError)]
        try:
            frames_THWC = video.frames(needed, size)
        except MediaError:
            if policy.fallback not in (None, reader):
                raise
            return [_decode_one(video, indices, clip, size) for indices, clip in zip(chosen, clips, strict=True)]
        return [
            indices
            if isinstance(indices, MediaError)
            else _cut(video, frames_THWC[np.searchsorted(needed, indices)], indices, clip)
            for indices, clip in zip(chosen, clips, strict=True)
        ]


def _choose(video: VideoFile, sampler: Sampler, clip: ClipBounds, path: str) -> list[int] | MediaError:
    start, end = clip[0], math.inf if clip[1] is None else clip[1]
    seconds_F = video.seconds_F
    inside = np.flatnonzero((seconds_F >= start - SAME_MOMENT) & (seconds_F <= end + SAME_MOMENT))
    if not len(inside):
        until = "the end" if clip[1] is None else f"{end:g} s"
        message = f"{path}: no frame from {start:g} s to {until}; it lasts {video.duration_seconds:.2f} s"
        return MediaError("outside", f"{message}; check the clip's bounds in the dataset")
    return sampler.sample(video, int(inside[0]), int(inside[-1]))


def _decode_one(
    video: VideoFile, indices: list[int] | MediaError, clip: ClipBounds, size: tuple[int, int]
) -> Frames | MediaError:
    if isinstance(indices, MediaError):
        return indices
    try:
        return _cut(video, video.frames(indices, size), indices, clip)
    except MediaError as error:
        return error


def _cut(video: VideoFile, frames_THWC: np.ndarray, indices: list[int], clip: ClipBounds) -> Frames:
    start, end = clip
    stop = video.duration_seconds if end is None else min(end, video.duration_seconds)
    return Frames(frames_THWC, np.maximum(video.seconds_F[indices] - start, 0.0), stop - start)


def target_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """(height, width) to decode to. With `max_pixels` the shape is kept and sides are multiples of `size.multiple`."""
    if size.height is not None and size.width is not None:
        return size.height, size.width
    scale = min(1.0, math.sqrt((size.max_pixels or 1) / (height * width)))
    step = size.multiple
    sides = [max(step, math.floor(side * scale / step + 1e-9) * step) for side in (height, width)]
    return sides[0], sides[1]


# ---------------------------------------------------------------------------------------------- bytes

# b"CNF2", length of the head as uint32 little-endian, the head as JSON, then the parts one after the other.
_MAGIC = b"CNF2"
_UNFILTERED = b"CNF1"  # the same, its lossless pixels stored as they are; still read
_LENGTH = struct.Struct("<I")


def encode_frames(frames: Frames, codec: str) -> bytes:
    """Self-describing bytes. `lossless`: zstd over differences of rows; `jpeg95`: one JPEG of quality 95 per frame.

    Raises ValueError for another codec.
    """
    frames_THWC = frames.frames_THWC
    if codec == "lossless":
        parts = [pa.compress(_up(frames_THWC).tobytes(), codec="zstd", asbytes=True)]
    elif codec == "jpeg95":
        parts = [_jpeg(frame_HWC) for frame_HWC in frames_THWC]
    else:
        raise ValueError(f"no codec {codec!r}; known: lossless, jpeg95")
    head = {
        "codec": codec,
        "shape": frames_THWC.shape,
        "seconds": frames.seconds_T.tolist(),
        "duration": frames.duration_seconds,
        "parts": [len(part) for part in parts],
    }
    text = json.dumps(head).encode()
    return b"".join([_MAGIC, _LENGTH.pack(len(text)), text, *parts])


def decode_frames(blob: bytes) -> Frames:
    """Inverse of `encode_frames`; the pixels are read-only. Raises ValueError on bytes that are damaged or not its."""
    try:
        if blob[:4] not in (_MAGIC, _UNFILTERED):
            raise ValueError(f"they start with {blob[:4]!r}")
        return _decoded(blob)
    except (ValueError, KeyError, TypeError, struct.error, OSError, pa.ArrowException) as error:
        raise ValueError(f"not encoded frames, or damaged ({len(blob)} bytes): {error}") from error


def _decoded(blob: bytes) -> Frames:
    text_at = len(_MAGIC) + _LENGTH.size
    parts_at = text_at + _LENGTH.unpack_from(blob, len(_MAGIC))[0]
    head = json.loads(blob[text_at:parts_at])
    bounds = np.cumsum([parts_at, *head["parts"]]).tolist()
    if bounds[-1] != len(blob):
        raise ValueError(f"{bounds[-1]} bytes are expected")
    parts = [blob[start:stop] for start, stop in pairwise(bounds)]
    shape = tuple(head["shape"])
    if head["codec"] == "lossless":
        raw = pa.decompress(parts[0], decompressed_size=math.prod(shape), codec="zstd", asbytes=True)
        stored_THWC = np.frombuffer(raw, np.uint8).reshape(shape)
        frames_THWC = stored_THWC if blob[:4] == _UNFILTERED else _undo_up(stored_THWC)
    else:
        frames_THWC = np.stack([np.asarray(Image.open(io.BytesIO(part)).convert("RGB")) for part in parts])
    frames_THWC.setflags(write=False)
    return Frames(frames_THWC, np.array(head["seconds"], dtype=np.float64), head["duration"])


def _up(frames_THWC: np.ndarray) -> np.ndarray:
    """Each row less the row above it, modulo 256 (filter "Up" of PNG, ISO/IEC 15948, 9.2).

    Camera-like pictures take 0.52 of their raw size instead of 0.86; differences between frames were never smaller.
    """
    differences_THWC = np.array(frames_THWC, order="C")
    differences_THWC[:, 1:] -= frames_THWC[:, :-1]
    return differences_THWC


def _undo_up(differences_THWC: np.ndarray) -> np.ndarray:
    frames_THWC = differences_THWC.copy()
    for row in range(1, frames_THWC.shape[1]):  # five times as fast as np.add.accumulate along this axis
        frames_THWC[:, row] += frames_THWC[:, row - 1]
    return frames_THWC


def _jpeg(frame_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
