"""Where the videos of NExT-QA and NExT-GQA are: VidOR's subfolders or one flat folder, video files or folders of frames."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cluenet.errors import DataError
from cluenet.records import VideoRef
from cluenet_components._files import existing_file, existing_folder, read_text
from cluenet_components.datasets._rows import BadRowError

MAP_NAME = "map_vid_vidorID.json"
SUFFIXES = (".mp4", ".mkv", ".avi", ".webm")


def map_file_of(setting: str, given: str | None, *folders: str) -> Path | None:
    """The file that maps video ids to VidOR paths: the `given` one, else one in `folders`. Raises DataError."""
    if given is not None:
        return existing_file(given, setting)
    return next((path for folder in folders if (path := Path(folder).expanduser() / MAP_NAME).is_file()), None)


def read_places(map_file: Path | None) -> dict[str, str]:
    """Video id -> path below the videos folder, without suffix; {} where there is no map. Raises DataError."""
    if map_file is None:
        return {}
    try:
        places = json.loads(read_text(map_file))
    except ValueError as error:
        raise DataError(f"{map_file}: is not valid JSON: {error}. Download it again.") from error
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise DataError(f'{map_file}: must be an object like {{"5550001112": "0207/5550001112"}}. Download it again.')
    return places


@dataclass
class VidorVideos:
    """Videos of one folder, each looked for once. `name`: of the dataset, for messages."""

    name: str
    folder: str
    map_file: Path | None
    fps: float | None
    _found: dict[str, VideoRef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = read_places(self.map_file)

    def ref(self, video: str, place: str = "") -> VideoRef:
        """The first of `<folder>/<place>` and `<folder>/<video>` that exists, else where the layout on disk would have it.
        `place`: what the row says; otherwise the map's. Raises BadRowError no_fps, DataError."""
        if video not in self._found:
            self._found[video] = self._look(video, place or self._places.get(video, ""))
        return self._found[video]

    def _look(self, video: str, place: str) -> VideoRef:
        root = existing_folder(self.folder, f"{self.name}.videos")
        stems = [root / place] if place else []
        stems.append(root / video)
        for stem in stems:
            for suffix in SUFFIXES:
                if (file := stem.with_name(stem.name + suffix)).is_file():
                    return VideoRef(str(file))
            if stem.is_dir():
                return self._frames(stem)
        expected = next((stem for stem in stems if stem.parent.is_dir()), stems[0])
        return VideoRef(f"{expected}{SUFFIXES[0]}")

    def _frames(self, folder: Path) -> VideoRef:
        if self.fps is None:
            raise BadRowError(
                "no_fps", f"{folder} is a folder of frames and nothing says their rate; set {self.name}.fps"
            )
        return VideoRef(str(folder), fps=self.fps)
