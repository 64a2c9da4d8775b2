"""Reading a video's container, of whose pictures only the first is decoded. Runs in the worker processes of `probe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from cluenet.config.serve import Limits
from cluenet.errors import MediaError
from cluenet.serve.errors import ServeError

FORMATS = "mov,matroska,avi,flv,ogg,asf,gif,mpeg,mpegts"
"""FFmpeg's demuxers that read the file and nothing else."""
STARTS = (
    *((4, name) for name in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")),  # MP4, MOV
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"FLV\x01"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF, WMV
    (0, b"GIF8"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
)
"""(place, bytes): how their files start. No text does."""
TS_SYNC, TS_PACKETS = b"\x47", ((0, 188), (4, 192))
"""MPEG transport streams, and the ones of cameras (M2TS): every packet has the sync byte. (place of the first, packet size)"""


@dataclass(frozen=True)
class VideoFacts:
    """seconds: of the whole file. frames: that it holds. width, height: of one of them, as stored."""

    seconds: float
    frames: int
    width: int
    height: int


def read_facts(path: str, limits: Limits) -> VideoFacts:
    """Raises MediaError for what is no video, ServeError 413 as soon as a limit is passed."""
    _check_start(path)
    only = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    within = {"max_pixels": str(limits.max_pixels)}  # a picture that would be larger is not decoded, whatever it says
    try:
        with av.open(path, options=within, container_options=only, metadata_errors="replace") as container:
            stream = _video(container)
            stream.codec_context.options = within
            shown = stream.codec_context
            _check(limits, stream.frames, _announced_seconds(container, stream), shown.width * shown.height)
            return _measured(container, stream, limits)
    except (av.error.FFmpegError, EOFError, ValueError):
        raise MediaError("corrupt", "not a whole video file") from None


def _check_start(path: str) -> None:
    with open(path, "rb") as file:
        head = file.read(512)
    named = any(head.startswith(name, place) for place, name in STARTS)
    if not named and not any(_is_transport_stream(head, *packets) for packets in TS_PACKETS):
        raise MediaError("unknown_container", "not a video file of a known kind")


def _is_transport_stream(head: bytes, first: int, size: int) -> bool:
    return all(head.startswith(TS_SYNC, place) for place in (first, first + size))


def _video(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise MediaError("no_video_stream", "no video in this file")
    if stream.codec_context is None:
        raise MediaError("unknown_codec", "its pictures are encoded in a way that is not known here")
    return stream


def _announced_seconds(container: InputContainer, stream: VideoStream) -> float:
    """What the header says, 0 where it says nothing."""
    own = float((stream.duration or 0) * (stream.time_base or 0))
    return max(own, (container.duration or 0) / av.time_base)


def _measured(container: InputContainer, stream: VideoStream, limits: Limits) -> VideoFacts:
    """By the packets, and by the first picture that comes out: headers may say anything."""
    stream.thread_count, stream.thread_type = 1, "NONE"
    packets, picture = _Packets(stream), None
    for packet in container.demux(stream):
        picture = picture or next(iter(packet.decode()), None)
        if packet.size:
            packets.add(packet)
            _check(limits, packets.count, packets.seconds, 0)
    if picture is None:
        raise MediaError("corrupt", "no frame can be decoded")
    _check(limits, packets.count, packets.seconds, picture.width * picture.height)
    return VideoFacts(packets.seconds, packets.count, picture.width, picture.height)


class _Packets:
    """How many there were, one per frame, and the time that they span."""

    def __init__(self, stream: VideoStream):
        self.count, self._stop = 0, 0
        self._start: int | None = None
        self._base, self._rate = float(stream.time_base or 0), float(stream.average_rate or 25)

    def add(self, packet: av.Packet[Any]) -> None:
        self.count += 1
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            self._start = time if self._start is None else min(self._start, time)
            self._stop = max(self._stop, time + (packet.duration or 0))

    @property
    def seconds(self) -> float:
        if self._start is None:  # a container without times
            return self.count / self._rate
        return max((self._stop - self._start) * self._base, 0.0)


def _check(limits: Limits, frames: int, seconds: float, pixels: int) -> None:
    for name, found, most in (
        ("frames", frames, limits.max_frames),
        ("seconds", seconds, limits.max_seconds),
        ("pixels", pixels, limits.max_pixels),
    ):
        if found > most:
            message = (
                f"the video has {found:g} {name}{' a frame' if name == 'pixels' else ''}, at most {most:g} are taken"
            )
            raise ServeError(413, "invalid_request_error", message, param="video", code=f"too_many_{name}")
