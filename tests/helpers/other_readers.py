"""What users would decode frames with instead of our readers, each in one thread and at the file's own size; and videos to compare
them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from cluenet.registry import register
from cluenet.testing.videos import write_video
from cluenet_components.readers.decord import import_decord

QUALITY = {"crf": "23"}
"""x264's default; a key frame only where `gop` says."""


@dataclass(frozen=True)
class Found:
    seconds_T: np.ndarray  # from the first frame of the file
    frames_THWC: np.ndarray


Read = Callable[[Path, Sequence[int]], Found]
"""Frames by their numbers, ascending."""


# ------------------------------------------------------------------------------------------------------------- videos


def panned(count: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """uint8 RGB [count, height, width, 3]: a view that moves over a drawn texture, so that every frame differs from the next and
    decoding has pictures to move, as in a film; a view, which takes no memory of its own."""
    rng = np.random.default_rng(seed)
    right, down = 3, 1
    sides = height + count * down, width + count * right
    texture_HWC = np.zeros((*sides, 3), np.float32)
    for cell in (4, 16, 64):
        coarse_HWC = rng.random((sides[0] // cell + 1, sides[1] // cell + 1, 3), dtype=np.float32)
        texture_HWC += coarse_HWC.repeat(cell, 0).repeat(cell, 1)[: sides[0], : sides[1]]
    pixels_HWC = (texture_HWC * (255 / 3)).astype(np.uint8)
    rows, columns, channels = pixels_HWC.strides
    strides = (down * rows + right * columns, rows, columns, channels)
    return np.lib.stride_tricks.as_strided(pixels_HWC, (count, height, width, 3), strides, writeable=False)


def write_panned(path: Path, count: int, height: int, width: int, *, gop: int, seed: int = 0) -> Path:
    """25 frames a second, H.264, a key frame every `gop` frames."""
    return write_video(path, panned(count, height, width, seed=seed), fps=25, gop=gop, codec_options=QUALITY)


def middles(count: int, wanted: int) -> list[int]:
    """The middles of `wanted` equal parts of `count` frames."""
    return [int((number + 0.5) * count / wanted) for number in range(wanted)]


# ------------------------------------------------------------------------------------------------------------ readers


def ours(reader: str) -> Read:
    def read(path: Path, wanted: Sequence[int]) -> Found:
        with register.reader.parse(reader).build().open(str(path)) as video:
            return Found(video.seconds_F[list(wanted)], video.frames(wanted, None))

    return read


def plain_decord(path: Path, wanted: Sequence[int]) -> Found:
    reader = import_decord().VideoReader(str(path), num_threads=1)
    return Found(reader.get_frame_timestamp(list(wanted))[:, 0], reader.get_batch(list(wanted)).asnumpy())


def _opened(path: Path) -> tuple[InputContainer, VideoStream]:
    container = av.open(str(path))
    stream = container.streams.video[0]
    stream.thread_count, stream.thread_type = 1, "NONE"
    return container, stream


def _all(frames: Iterator[VideoFrame]) -> Found:
    found = [(float(frame.time or 0), frame.to_ndarray(format="rgb24")) for frame in frames]
    return Found(np.array([seconds for seconds, _ in found]), np.stack([frame_HWC for _, frame_HWC in found]))


def pyav_sequential(path: Path, wanted: Sequence[int]) -> Found:
    """Everything up to the last wanted frame."""

    def frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        chosen = set(wanted)
        for number, frame in enumerate(container.decode(stream)):
            if number in chosen:
                yield frame
            if number == wanted[-1]:
                return

    container, stream = _opened(path)
    with container:
        return _all(frames(container, stream))


def pyav_seeking(path: Path, wanted: Sequence[int]) -> Found:
    """From the key frame before each wanted frame, by its time at a constant rate: without looking whether it is one."""

    def frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        assert stream.average_rate
        assert stream.time_base
        for number in wanted:
            ticks = round(number / stream.average_rate / stream.time_base)
            container.seek(ticks, stream=stream)
            yield next(frame for frame in container.decode(stream) if (frame.pts or 0) >= ticks)

    container, stream = _opened(path)
    with container:
        return _all(frames(container, stream))


def torchcodec(path: Path, wanted: Sequence[int]) -> Found:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    batch = decoder.get_frames_at(list(wanted))
    return Found(batch.pts_seconds.numpy(), batch.data.numpy())


def others() -> dict[str, Read]:
    """Those that can be imported here: torchcodec needs shared libraries of FFmpeg on the machine."""
    found: dict[str, Read] = {
        "decord": plain_decord, "PyAV sequential": pyav_sequential, "PyAV seeking": pyav_seeking,
    }  # fmt: skip
    try:
        import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):
        return found
    return {**found, "torchcodec": torchcodec}
