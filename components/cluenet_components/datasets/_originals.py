"""Names of the original videos that several benchmarks were made from, read off the names of their files.

Benchmarks copy, cut and re-encode each other's videos, so that neither path nor content tells that two files show the same.
"""

from __future__ import annotations

import re
from pathlib import PurePath

_CHARADES = re.compile(r"([0-9A-Z]{5})(?:_[\d._-]+)?")  # pre-cut copies append the times of their clip
_CLEVRER = re.compile(r"video_(\d{5})")
_VIDOR = re.compile(r"\d{8,12}")


def charades(video: str) -> str | None:
    """`.../Charades_v1_480/QX7ZT.mp4`, a folder of its frames, or `.../QX7ZT_4.2_13.8.mp4` -> `charades:QX7ZT`."""
    return _named("charades", _CHARADES.fullmatch(_stem(video)))


def clevrer(video: str) -> str | None:
    """`.../video_validation/video_10000-11000/video_10009.mp4` -> `clevrer:10009`."""
    return _named("clevrer", _CLEVRER.fullmatch(_stem(video)))


def vidor(video: str) -> str | None:
    """`.../NExTVideo/0207/5550001112.mp4` -> `vidor:5550001112`."""
    return _named("vidor", _VIDOR.fullmatch(_stem(video)))


def _stem(video: str) -> str:
    """The file's name without the suffix of a video, which times in the name do not have."""
    return re.sub(r"\.[A-Za-z]\w{1,4}$", "", PurePath(video).name)


def _named(source: str, match: re.Match[str] | None) -> str | None:
    return match and f"{source}:{match[1] if match.re.groups else match[0]}"
