"""Makes small videos with known content, for tests of readers, samplers and whole pipelines. Needs PyAV and numpy only.

    frames_THWC = counting_frames(48, height=64, width=96)
    write_video(tmp_path / "a.mp4", frames_THWC, fps=25, gop=12, bframes=2)
    read_number(decoded_HWC)  # 17 for frame 17, after H.264, resizing and colour conversion

Every frame of `counting_frames` carries its number as a 4 x 4 grid of coloured cells, so a test can say "frame 17 is
frame 17" instead of comparing pixels. The cell in the top left corner is red: a wrong rotation or BGR order is seen too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream

GRID = 4
MAX_FRAMES = 2 ** (GRID * GRID - 1)
RED, DARK, LIGHT = (210, 40, 40), (20, 40, 90), (235, 215, 130)
VARIABLE_TIME_BASE = Fraction(1, 90_000)  # MPEG's clock
X264 = {"preset": "veryfast", "crf": "10", "threads": "1", "sc_threshold": "0"}  # key frames only where `gop` says
AUDIO_RATE = 16_000


def counting_frames(count: int, *, height: int = 64, width: int = 64) -> np.ndarray:
    """uint8 RGB [count, height, width, 3]; frame i shows the number i. Raises ValueError for a count or size out of range."""
    if not 0 < count <= MAX_FRAMES:
        raise ValueError(f"count is {count}, must be in 1..{MAX_FRAMES}")
    if min(height, width) < 2 * GRID:
        raise ValueError(f"frames of {height} x {width} are too small, each side must be at least {2 * GRID}")
    bits_TN = (np.arange(count)[:, None] >> np.arange(GRID * GRID - 1)) & 1
    cells_TNC = np.where(bits_TN[..., None] == 1, LIGHT, DARK)
    marks_TNC = np.broadcast_to(np.array(RED), (count, 1, 3))
    cells_TGGC = np.concatenate([marks_TNC, cells_TNC], axis=1).reshape(count, GRID, GRID, 3).astype(np.uint8)
    rows_H, columns_W = np.arange(height) * GRID // height, np.arange(width) * GRID // width
    return cells_TGGC[:, rows_H[:, None], columns_W[None, :]]


def read_number(frame_HWC: np.ndarray) -> int:
    """The number of a frame of `counting_frames`, read from the middles of its cells.

    Raises ValueError when the red cell is not in the top left corner or a cell is neither dark nor light: then the frame
    is rotated, mirrored, in BGR order, or a mixture of two frames.
    """
    height, width, _ = frame_HWC.shape
    centers = (2 * np.arange(GRID) + 1) / (2 * GRID)
    rows_G, columns_G = (centers * height).astype(int), (centers * width).astype(int)
    cells_NC = frame_HWC[rows_G[:, None], columns_G[None, :]].reshape(-1, 3).astype(int)
    distance_NK = np.abs(cells_NC[:, None] - np.array([DARK, LIGHT, RED])).max(axis=-1)
    nearest_N = distance_NK.argmin(axis=-1)
    if nearest_N[0] != 2 or (nearest_N[1:] == 2).any() or distance_NK.min(axis=-1).max() > 48:
        raise ValueError(f"not an upright counting frame; its cells are {cells_NC.tolist()}")
    return int((nearest_N[1:] << np.arange(GRID * GRID - 1)).sum())


def write_video(
    path: str | Path,
    frames_THWC: np.ndarray,
    *,
    fps: float | Fraction = 25,
    codec: str = "libx264",
    gop: int | None = None,
    bframes: int = 0,
    pixel_format: str = "yuv420p",
    rotation: int | None = None,
    seconds: Sequence[float] | None = None,
    audio: bool = False,
    trim_frames: int = 0,
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode uint8 RGB [T, H, W, 3] into a container chosen by the suffix of `path`, which is returned.

    gop: frames between key frames, None for the codec's own. bframes: at most so many in a row.
    rotation: degrees counter-clockwise that a player turns the picture by (ISO/IEC 14496-12, `tkhd` matrix).
    seconds: presentation time of each frame, ascending, for a variable rate (`fps` then sets the last one's duration).
    audio: add a track of silence as long as the pictures. trim_frames: an edit list hides so many first frames (mp4).
    H.264 in yuv420p needs even sides; odd ones work with pixel_format="yuv444p". Raises ValueError and av.FFmpegError.
    """
    rate = Fraction(fps).limit_denominator(1001)
    time_base = 1 / rate if seconds is None else VARIABLE_TIME_BASE
    ticks = list(range(len(frames_THWC))) if seconds is None else [round(time / time_base) for time in seconds]
    if len(ticks) != len(frames_THWC) or any(late <= early for early, late in pairwise(ticks)):
        raise ValueError(f"`seconds` must hold {len(frames_THWC)} ascending times, got {list(seconds or ())[:5]}...")
    with av.open(str(path), "w", container_options=dict(container_options or {})) as output:
        options = {**(X264 if codec == "libx264" else {}), "bf": str(bframes), **(codec_options or {})}
        stream = cast(VideoStream, output.add_stream(codec, rate=rate, options=options))
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt, stream.thread_count = pixel_format, 1
        stream.time_base = stream.codec_context.time_base = time_base
        if gop is not None:
            stream.gop_size = gop
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sound = output.add_stream("aac", rate=AUDIO_RATE) if audio else None
        for packet in _packets(stream, frames_THWC, ticks, time_base):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - ticks[trim_frames], packet.dts - ticks[trim_frames]
            output.mux(packet)
        if sound is not None:
            for packet in _silence(sound, float(ticks[-1] * time_base + 1 / rate)):
                output.mux(packet)
    return Path(path)


def _packets(
    stream: VideoStream, frames_THWC: np.ndarray, ticks: Sequence[int], time_base: Fraction
) -> Iterator[av.Packet[Any]]:
    for frame_HWC, tick in zip(frames_THWC, ticks):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        frame.pts, frame.time_base = tick, time_base
        yield from stream.encode(frame)
    yield from stream.encode()


def _silence(stream: av.AudioStream, seconds: float) -> Iterator[av.Packet[Any]]:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, max(1, int(seconds * AUDIO_RATE))), np.float32), "fltp", "mono")
    frame.sample_rate = AUDIO_RATE
    yield from stream.encode(frame)
    yield from stream.encode()


def write_audio_only(path: str | Path, *, seconds: float = 1.0) -> Path:
    """A file with one track of silence and no picture."""
    with av.open(str(path), "w") as output:
        for packet in _silence(output.add_stream("aac", rate=AUDIO_RATE), seconds):
            output.mux(packet)
    return Path(path)


def write_frame_folder(path: str | Path, frames_THWC: np.ndarray, *, pattern: str = "%05d.png", first: int = 1) -> Path:
    """A folder with one PNG or JPEG per frame, named by the printf `pattern` and counted from `first`."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame_HWC in enumerate(frames_THWC, start=first):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        frame.save(str(folder / (pattern % number)))
    return folder


def write_truncated(path: str | Path, video: str | Path, *, keep: float = 0.5) -> Path:
    """The first part of an existing video file, `keep` of its bytes: a download that broke off."""
    content = Path(video).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * keep)])
    return Path(path)


def write_garbage(path: str | Path, *, num_bytes: int = 4096, seed: int = 0) -> Path:
    """Random bytes under a video's name."""
    Path(path).write_bytes(np.random.default_rng(seed).bytes(num_bytes))
    return Path(path)


def write_empty(path: str | Path) -> Path:
    """A file of zero bytes."""
    Path(path).write_bytes(b"")
    return Path(path)
