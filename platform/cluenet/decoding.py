"""From a video file to the sampled frames of its clips, and frames to bytes and back. One opening per file. Ray-free."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cluenet.config.data import DataSection, Size
from cluenet.contracts import VideoFile
from cluenet.errors import MediaError
from cluenet.records import Frames, content_hash
from cluenet.registry import register

ClipBounds = tuple[float, float | None]
JPEG_QUALITY = 95


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
        version = register.sampler.parse(self.sampler).component.version
        return content_hash("frames", self.sampler, version, self.size, self.codec)

    def readers(self) -> list[str]:
        """Names, in the order in which they are tried."""
        return [self.reader["name"], *([self.fallback["name"]] if self.fallback else [])]


def decode_clips(
    path: str, fps: float | None, clips: Sequence[ClipBounds], policy: FramePolicy, *, reader: Mapping[str, Any] | None = None
) -> list[Frames | MediaError]:
    """Frames of every (start_seconds, end_seconds) of one file, or why a clip has none. Raises MediaError when the file as a
    whole cannot be read. `reader`: settings of another reader than the policy's first."""
    sampler = register.sampler.parse(policy.sampler).build()
    with register.reader.parse(reader or policy.reader).build().open(path, fps=fps) as video:
        size = target_size(video.height, video.width, Size(**policy.size))
        chosen = [_choose(video, sampler, clip, path) for clip in clips]
        needed = sorted({i for indices in chosen if isinstance(indices, list) for i in indices})
        if not needed:
            return [error for error in chosen if isinstance(error, MediaError)]
        pictures, place = video.frames(needed, size), {index: i for i, index in enumerate(needed)}
        return [
            indices if isinstance(indices, MediaError) else _cut(video, pictures[[place[i] for i in indices]], indices, clip)
            for indices, clip in zip(chosen, clips)
        ]


def _choose(video: VideoFile, sampler, clip: ClipBounds, path: str) -> list[int] | MediaError:
    start, end = clip
    inside = np.nonzero((video.seconds_F >= start - 1e-6) & (video.seconds_F <= (math.inf if end is None else end) + 1e-6))[0]
    if not len(inside):
        until = "the end" if end is None else f"{end:g} s"
        return MediaError("outside", f"{path}: no frame from {start:g} s to {until}; it lasts {video.duration_seconds:.2f} s")
    return sampler.sample(video, int(inside[0]), int(inside[-1]))


def _cut(video: VideoFile, frames_THWC: np.ndarray, indices: list[int], clip: ClipBounds) -> Frames:
    start, end = clip
    stop = video.duration_seconds if end is None else min(end, video.duration_seconds)
    return Frames(frames_THWC, video.seconds_F[indices] - start, stop - start)


def target_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """(height, width) to decode to. With `max_pixels` the shape is kept and sides are multiples of `size.multiple`."""
    if size.height is not None and size.width is not None:
        return size.height, size.width
    scale = min(1.0, math.sqrt((size.max_pixels or 1) / (height * width)))
    step = size.multiple
    sides = [max(step, math.floor(side * scale / step + 1e-9) * step) for side in (height, width)]
    return sides[0], sides[1]


# ---------------------------------------------------------------------------------------------- bytes

_MAGIC = b"CNF1"


def encode_frames(frames: Frames, codec: str) -> bytes:
    """Self-describing bytes. `lossless`: zstd over the raw pixels; `jpeg95`: one JPEG of quality 95 per frame."""
    pixels = frames.frames_THWC
    if codec == "lossless":
        parts = [pa.compress(np.ascontiguousarray(pixels).tobytes(), codec="zstd", asbytes=True)]
    elif codec == "jpeg95":
        parts = [_jpeg(picture) for picture in pixels]
    else:
        raise ValueError(f"no codec {codec!r}; known: lossless, jpeg95")
    head = {"codec": codec, "shape": pixels.shape, "seconds": frames.seconds_T.tolist(),
            "duration": frames.duration_seconds, "parts": [len(part) for part in parts]}  # fmt: skip
    text = json.dumps(head).encode()
    return b"".join([_MAGIC, struct.pack("<I", len(text)), text, *parts])


def decode_frames(blob: bytes) -> Frames:
    """Inverse of `encode_frames`. Raises ValueError on bytes that are not its."""
    if blob[:4] != _MAGIC:
        raise ValueError("not encoded frames")
    (length,) = struct.unpack("<I", blob[4:8])
    head, at, parts = json.loads(blob[8 : 8 + length]), 8 + length, []
    for size in head["parts"]:
        parts.append(blob[at : at + size])
        at += size
    shape = tuple(head["shape"])
    if head["codec"] == "lossless":
        raw = pa.decompress(parts[0], decompressed_size=math.prod(shape), codec="zstd", asbytes=True)
        pixels = np.frombuffer(raw, np.uint8).reshape(shape)
    else:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(part)).convert("RGB")) for part in parts])
    return Frames(pixels, np.array(head["seconds"], dtype=np.float64), head["duration"])


def _jpeg(picture_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
