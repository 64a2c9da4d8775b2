"""Reader `decord`: https://github.com/dmlc/decord, on Linux x86-64 only.

decord finds a frame by seeking to a key frame and counting from there, in the order in which packets are stored. That is
silently wrong where frames shown before a key frame are stored after it (open GOPs: HEVC and MPEG-4 by default), where an
edit list hides frames, and in AVI and MPEG streams. So the container is checked first, and such files are refused with
reason `unsupported`, for the fallback reader to deliver. What it hides cannot be undone here: a picture whose data is
partly damaged comes patched up from its neighbour, where `pyav` reports it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from cluenet.contracts import Reader, VideoFile
from cluenet.errors import DataError, MediaError
from cluenet.registry import register
from cluenet_components.readers._index import MP4, FrameIndex, read_index
from cluenet_components.readers._source import open_path

EXACT_FORMATS = frozenset({MP4, "matroska,webm", "flv"})
NO_SUBSTITUTES = 1e-9  # fault_tol: fail on the first frame that decord would replace by its neighbour
NEVER_PADDED = 96  # pixels; no width from here to 700 was mistaken (tried 2026-11, decord 0.6)
END_OF_FILE_RETRIES = "2048"  # 64 gives up on sound files under load, 512 did not; the default is 10240
STAMP = re.compile(r"^(\[[\d:]+\] \S+:\d+: )+")  # "[12:57:14] /github/workspace/src/video/video_reader.cc:444: "


@register.reader("decord")
class DecordReader(Reader):
    """decord, where it is frame-exact: closed GOPs in MP4, MOV, Matroska, WebM and FLV; the rest it refuses."""

    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        """Raises DataError where decord is not installed; MediaError as every reader, and with reason unsupported."""
        return open_path(path, fps, lambda file: DecordFile(file, read_index(file), import_decord()))


def import_decord() -> ModuleType:
    """The library, made quiet. Raises DataError where it cannot be imported."""
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", END_OF_FILE_RETRIES)
    try:
        import decord
    except (ImportError, OSError, RuntimeError) as error:
        raise DataError(
            f"reader decord: the library cannot be imported here ({error}). It exists for Linux on x86-64 only; "
            "set data.reader to pyav."
        ) from error
    decord.logging.set_level(decord.logging.QUIET)  # what it prints comes again as an exception
    return cast(ModuleType, decord)


class DecordFile(VideoFile):
    """One decoder at a time, with one thread: decord fixes the size of its pictures when it opens a file."""

    def __init__(self, path: Path, index: FrameIndex, decord: ModuleType):
        self.path, self._decord = path, decord
        self.seconds_F, self.duration_seconds = index.seconds_F, index.duration_seconds
        self.width, self.height = index.width, index.height
        self._size: tuple[int, int] | None = None
        self._decoder: Any = None
        if index.format not in EXACT_FORMATS:
            raise self._unsupported(f"it seeks wrongly in this container ({index.format})")
        if not index.is_closed:
            raise self._unsupported("it has open groups of pictures, gradual refresh, or frames hidden by an edit list")

    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        decoder = self._decoder_for(size or (self.height, self.width))
        try:
            frames_THWC = _batch(decoder, wanted.tolist(), *(size or (self.height, self.width)))
        except Exception as error:  # decord raises RuntimeError, DECORDError and its own kinds without a common base
            self.close()  # after a failure decord goes on with the wrong frames
            message = f"{self.path}: decord: {_first_line(error)}; fetch or encode it again"
            raise MediaError("corrupt", message) from error
        return frames_THWC[places]

    def close(self) -> None:
        self._decoder = self._size = None

    def _decoder_for(self, size: tuple[int, int]) -> Any:
        if self._size != size:
            self.close()
            self._decoder, self._size = self._open(*size), size
        return self._decoder

    def _open(self, height: int, width: int) -> Any:
        try:
            decoder = self._decord.VideoReader(
                str(self.path), width=width, height=height, num_threads=1, fault_tol=NO_SUBSTITUTES
            )
        except Exception as error:
            raise self._unsupported(_first_line(error)) from error
        if len(decoder) != len(self.seconds_F):
            raise self._unsupported(f"it counts {len(decoder)} frames where {len(self.seconds_F)} are shown")
        return decoder

    def _unsupported(self, what: str) -> MediaError:
        message = f"{self.path}: decord cannot deliver exact frames of it: {what}; use the reader pyav"
        return MediaError("unsupported", message)


def _batch(decoder: Any, indices: list[int], height: int, width: int) -> np.ndarray:
    """uint8 RGB [len(indices), height, width, 3].

    decord pads rows in memory, and where the padded length is a multiple of a narrow width (48, say) it takes the padding
    for more channels: `get_batch` then fails, and single frames come with rows to be cut.
    """
    if width >= NEVER_PADDED:
        return np.asarray(decoder.get_batch(indices).asnumpy())
    rows_THB = np.stack([decoder[index].asnumpy().reshape(height, -1) for index in indices])
    return rows_THB[:, :, : 3 * width].reshape(len(indices), height, width, 3)


def _first_line(error: Exception) -> str:
    return STAMP.sub("", str(error).strip().partition("\n")[0]) or type(error).__name__
