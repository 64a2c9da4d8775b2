"""A recipe of a few videos whose store may be a URI, prepared without Ray: in this process, or in one that is to be killed.

python -m helpers.stored RECIPE.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluenet.data.batches import Batch
from cluenet.data.parts import Account, PartMaker
from cluenet.data.prepare import prepare
from cluenet.folders import read_manifest
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.records import Example, Quarantined, VideoRef
from cluenet.testing.videos import counting_frames, write_garbage, write_video
from helpers.listed import write_rows

FILES = 20
"""In two parts."""


def write_videos(folder: Path) -> list[Example | Quarantined]:
    """Questions about FILES videos, one of which is none, and a row that is no question."""
    frames = counting_frames(10)
    for number in range(FILES - 1):
        write_video(folder / f"v{number:02d}.mp4", frames, fps=10, gop=5)
    write_garbage(folder / f"v{FILES - 1:02d}.mp4")
    videos = [VideoRef(str(folder / f"v{number:02d}.mp4")) for number in range(FILES)]
    rows: list[Example | Quarantined] = [
        Example(f"q{n}", "listed", video, "does it move?", options=("yes", "no"), answer=0)
        for n, video in enumerate(videos)
    ]
    return [*rows, Quarantined("row 9", "listed", "", "malformed", "no question")]


def recipe(
    folder: Path, rows: Sequence[Example | Quarantined], *, delay_seconds: float = 0.0, **settings: Any
) -> Recipe:
    file, log = write_rows(folder / "rows.json", rows), folder / "openings.log"
    data = {
        "reader": {"name": "logged", "log": str(log), "delay_seconds": delay_seconds}, "fallback_reader": None,
        "sampler": {"name": "uniform", "frames": 4}, "size": {"height": 32, "width": 32},
        "train": [{"name": "listed", "file": str(file)}], "decode_workers": 1,
    }  # fmt: skip
    return Recipe.from_dict({"plugins": ["helpers.listed"], "data": data, **settings})


def prepared(made: Recipe, split: str = "train") -> Path:
    with patch("cluenet.data.prepare.accounts_of", _here):
        return prepare(made, getattr(made.data, split)[0])


def _here(work: Sequence[Batch], made: Recipe, folder: Path) -> Iterator[Account]:
    maker = PartMaker(made, folder)
    try:
        yield from map(maker.account, work)
    finally:
        maker.close()


def contents(folder: Path) -> dict[str, Any]:
    """All that a prepared set says, and its manifest but for what is about the run and the recipe."""
    found = PreparedSet(folder)
    frames = {key: found.frames(key).frames_THWC.tobytes() for key in found.clip_keys}
    manifest = {k: v for k, v in read_manifest(folder).items() if k not in ("run", "address", "dataset", "policy")}
    return {"frames": frames, "examples": found.examples(), "manifest": manifest}


if __name__ == "__main__":
    prepared(Recipe.from_dict(json.loads(Path(sys.argv[1]).read_text())))
