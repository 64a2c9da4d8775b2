"""Where the videos of NExT-QA and NExT-GQA are: VidOR's subfolders or one flat folder, video files or folders of frames."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cluenet.errors import DataError
from cluenet.records import VideoRef
from cluenet_components._files import existing_file, read_text
from cluenet_components.datasets._places import Places
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
    """Videos of one dataset, each looked for once. `name`: of the dataset, for messages."""

    name: str
    places: Places
    map_file: Path | None
    fps: float | None
    _found: dict[str, VideoRef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._folders = read_places(self.map_file)

    def ref(self, video: str, place: str = "") -> VideoRef:
        """The video at `place` or at `video` below the folder, else where the layout on disk would have it. `place`: what the
        row says; otherwise the map's. Raises BadRowError no_fps and corrupt_archive, DataError."""
        if video not in self._found:
            self._found[video] = self._look(list(filter(None, [place or self._folders.get(video, ""), video])))
        return self._found[video]

    def _look(self, stems: list[str]) -> VideoRef:
        for there in (self.places.on_disk, self.places):
            if file := there.file(*(f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)):
                return VideoRef(str(file))
            if folder := there.folder(*stems):
                return self._frames(folder)
        paths = [self.places.root / stem for stem in stems]
        expected = next((path for path in paths if path.parent.is_dir()), paths[0])
        return VideoRef(f"{expected}{SUFFIXES[0]}")

    def _frames(self, folder: Path) -> VideoRef:
        if self.fps is None:
            raise BadRowError(
                "no_fps", f"{folder} is a folder of frames and nothing says their rate; set {self.name}.fps"
            )
        return VideoRef(str(folder), fps=self.fps)
