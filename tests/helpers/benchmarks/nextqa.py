"""A miniature of NExT-QA in the official format: csv files, the map to VidOR's folders, small videos."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluenet.testing.videos import counting_frames, write_video

HEADER = ("video", "frame_count", "width", "height", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")
OPTIONS = ("tie her shoe", "greet the dog", "sit down", "pick up toy", "dance")
TYPES = ("CW", "CH", "TN", "TC", "TP", "DL", "DO", "DC")
VIDEOS = {
    "train": {"5550001111": "0207/5550001111", "5550001112": "0207/5550001112"},
    "val": {"5550001121": "0207/5550001121", "5550001122": "1164/5550001122"},
    "test": {"5550001131": "1164/5550001131", "5550001132": "1164/5550001132"},
}
MISSING = {"train": "5550001119", "val": "5550001129", "test": "5550001139"}
FPS, FRAMES = 8, 24


def make_nextqa(folder: Path) -> Path:
    """In every split 8 questions about each of 2 videos of its own, and 8 about one that is missing."""
    make_vidor_videos(folder)
    for split in VIDEOS:
        write_csv(folder / f"{split}.csv", HEADER, rows_of(split))
    return folder


def make_vidor_videos(folder: Path) -> None:
    """Three seconds each and no two alike, in VidOR's folders, with the map."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {video: place for videos in VIDEOS.values() for video, place in videos.items()}
    lost = {video: f"0207/{video}" for video in MISSING.values()}
    (folder / "map_vid_vidorID.json").write_text(json.dumps(places | lost))
    frames_THWC = counting_frames(FRAMES * len(places))
    for number, place in enumerate(places.values()):
        video = folder / "NExTVideo" / f"{place}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        write_video(video, frames_THWC[number * FRAMES :][:FRAMES], fps=FPS)


def rows_of(split: str) -> list[tuple[Any, ...]]:
    return [row for video in (*VIDEOS[split], MISSING[split]) for row in questions(video)]


def questions(video: str) -> list[tuple[Any, ...]]:
    """One of every type."""
    return [
        (video, FRAMES, 64, 64, f"why did she {OPTIONS[qid % 5]}", (qid + int(video)) % 5, qid, kind, *OPTIONS)
        for qid, kind in enumerate(TYPES)
    ]


def write_csv(file: Path, header: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([header, *rows])
