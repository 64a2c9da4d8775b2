"""Opened videos of every kind that readers must get right, whose frames say their number."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluenet.contracts import VideoFile
from cluenet.registry import register
from cluenet.testing.videos import (
    counting_frames,
    read_number,
    write_video,
)

FPS = 25
COUNT = 60
SPREAD = [0, 1, 7, 20, 21, 34, 50, 59]
UNEVEN = np.cumsum([0, *np.random.default_rng(0).integers(1, 6, COUNT - 1)]) / 50
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}


def opened(reader: str, path: Path, fps: float | None = None, **settings: Any) -> VideoFile:
    if reader == "decord" and sys.platform != "linux":
        pytest.skip("decord exists for Linux only")
    return register.reader.parse({"name": reader, **settings}).build().open(str(path), fps=fps)


def numbers(frames_THWC: np.ndarray) -> list[int]:
    return [read_number(frame_HWC) for frame_HWC in frames_THWC]


EXACT: dict[str, dict[str, Any]] = {  # both readers deliver these
    "constant.mp4": {"gop": 12},
    "b_frames.mp4": {"gop": 12, "bframes": 3},
    "one_gop.mp4": {"gop": 1000, "bframes": 2},
    "only_keys.mp4": {"gop": 1},
    "uneven.mp4": {"gop": 20, "bframes": 2, "seconds": UNEVEN},
    "sound.mp4": {"gop": 12, "bframes": 2, "audio": True},
    "ntsc.mp4": {"gop": 12, "bframes": 2, "fps": Fraction(30000, 1001)},
    "flash.flv": {"gop": 12, "bframes": 2},
    "matroska.mkv": {"gop": 12, "bframes": 2},
    "vp9.webm": {"gop": 12, "codec": "libvpx-vp9", "codec_options": {"deadline": "realtime", "cpu-used": "8"}},
}
HARD: dict[str, dict[str, Any]] = {  # decord is silently wrong about these, so it must refuse them
    "open_gop.mp4": {"bframes": 3, "codec_options": OPEN_GOP},
    "edited.mp4": {"gop": 12, "bframes": 2, "trim_frames": 5},
    "hevc.mp4": {"bframes": 2, "codec": "libx265", "codec_options": {"x265-params": "log-level=none:keyint=12"}},
    "refresh.mp4": {"gop": 12, "codec_options": {"x264-params": "intra-refresh=1"}},
    "stream.ts": {"gop": 12, "bframes": 2},
    "program.mpg": {"gop": 12, "bframes": 2, "codec": "mpeg2video", "codec_options": {"qscale": "2"}},
    "b_frames.avi": {"gop": 12, "bframes": 2, "codec": "mpeg4"},
}


def video_of_kind(folder: Path, name: str) -> Path:
    """One of EXACT or HARD, by its name, made once: COUNT frames of 64x96."""
    path, settings = folder / name, {"fps": FPS, **{**EXACT, **HARD}[name]}
    return path if path.exists() else write_video(path, counting_frames(COUNT, height=64, width=96), **settings)
