"""From the way a row names its video to a `VideoRef`: paths, file URLs, folders of frames, lists of frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cluenet.records import VideoRef
from cluenet_components.datasets._rows import BadRowError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class NamedVideo:
    """A video as a row names it: a path, or the paths of its frames; with what the row says about it, in seconds."""

    name: str | tuple[str, ...]
    fps: float | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None


def named_videos(value: Any) -> list[NamedVideo]:
    """Each video in a row's `video` or `videos` field: one name, a list of names, a list of lists of frames.

    A flat list of image names is one video by its frames. Raises BadRowError malformed.
    """
    if value in (None, "", [], {}):
        return []
    if isinstance(value, list) and _are_images(value):
        return [NamedVideo(tuple(value))]
    return [NamedVideo(_name(item)) for item in (value if isinstance(value, list) else [value])]


def _name(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("path", "url", "video") if value.get(key)), value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, list) and _are_images(value):
        return tuple(value)
    raise BadRowError("malformed", f"a video is a path, a file:// URL or a list of frame images, not {value!r:.120}")


def _are_images(value: Sequence[Any]) -> bool:
    return bool(value) and all(
        isinstance(item, str) and item.strip().lower().endswith(IMAGE_SUFFIXES) for item in value
    )


def video_ref(video: NamedVideo, root: Path, fps: float | None) -> VideoRef:
    """Where the video should be; whether it is there is found out when it is opened. Relative paths start at `root`.

    `fps` (frames per second) serves folders of frames whose row gives none. Raises BadRowError with reason
    unsupported_url, frame_list, no_fps or bad_bounds.
    """
    if isinstance(video.name, str):
        path = local_path(video.name, root)
        is_folder = path.is_dir()
    else:
        path, is_folder = _frame_folder([local_path(name, root) for name in video.name]), True
    rate = (video.fps or fps) if is_folder else None
    if is_folder and rate is None:
        raise BadRowError(
            "no_fps", f"{path} is a folder of frames and nothing says their rate; give fps in the settings"
        )
    try:
        return VideoRef(str(path), video.start_seconds or 0.0, video.end_seconds, rate)
    except ValueError as error:
        raise BadRowError("bad_bounds", str(error)) from None


def local_path(name: str, root: Path) -> Path:
    """A path or file:// URL as a path. Raises BadRowError unsupported_url for any other scheme."""
    if not re.match(r"[a-zA-Z][\w+.-]+://|data:", name):
        return root / Path(name).expanduser()
    url = urlsplit(name)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise BadRowError(
            "unsupported_url", f"{name[:120]!r}: only paths and file:///... are read; download the video first"
        )
    return root / unquote(url.path)


def frame_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame_2.jpg before frame_10.jpg."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]


def _frame_folder(frames: list[Path]) -> Path:
    """The folder whose images, in order, the list names. A folder that is not there is reported when it is opened."""
    folder = frames[0].parent
    if any(frame.parent != folder for frame in frames):
        others = sorted({str(frame.parent) for frame in frames})
        raise BadRowError(
            "frame_list", f"the frames lie in several folders: {', '.join(others[:3])}; put them into one"
        )
    if not folder.is_dir():
        return folder
    names = [frame.name for frame in frames]
    held = sorted((entry.name for entry in folder.iterdir() if _are_images([entry.name])), key=frame_order)
    if names != held:
        first = next((pair for pair in zip(names, held) if pair[0] != pair[1]), None)
        differs = (
            f"the first difference is {first[0]!r} where the folder has {first[1]!r}" if first else "one is longer"
        )
        raise BadRowError(
            "frame_list",
            f"lists {len(names)} frames, {folder} holds {len(held)}; {differs}. "
            "A video by its frames must be all images of one folder in order: copy the wanted ones to a folder of their own",
        )
    return folder
