"""A small MVBench in the layout of OpenGVLab/MVBench: json/ and video/, two questions of every task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cluenet.testing.videos import write_frame_folder, write_video
from helpers.benchmarks.pictures import frames_of

FILES = {
    "action_sequence": "star/Charades_v1_480", "action_prediction": "star/Charades_v1_480", "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos", "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation", "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos", "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video", "scene_transition": "scene_qa/video", "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation", "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos", "fine_grained_pose": "nturgbd", "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa", "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": "clevrer/video_validation",
}  # fmt: skip
"""The 20 json files in the official order -> the folder of their videos."""
BOUNDED = ("action_sequence", "action_prediction", "object_interaction", "action_localization", "episodic_reasoning")
SUFFIXES = {"ssv2_video": ".webm", "nturgbd": ".avi", "tvqa/frames_fps3_hq": ""}
CANDIDATES = ["Took the cup.", "Opened the door.", "Sat down.", "Closed the box.", "Left."]
FPS = 8
SAME_BYTES = {"fflags": "+bitexact"}  # no random ids in .webm


def make_mvbench(folder: Path, *, questions: int = 2, ntu: bool = False, zipped: bool = False) -> Path:
    """Returns `folder`. ntu: with the videos of NTU RGB+D, which nobody may pass on. zipped: every folder of videos as an
    archive beside the others, as they are published."""
    (folder / "json").mkdir(parents=True)
    for name in FILES:
        rows = [mvbench_row(name, number) for number in range(questions)]
        (folder / "json" / f"{name}.json").write_text(json.dumps(rows))
    for place in dict.fromkeys(FILES.values()):
        if ntu or place != "nturgbd":
            _make_videos(folder / "video" / place, place, questions)
    if zipped:
        for top in [path for path in (folder / "video").iterdir() if path.is_dir()]:
            shutil.make_archive(str(top), "zip", top.parent, top.name)
            shutil.rmtree(top)
    return folder


def mvbench_row(name: str, number: int) -> dict[str, Any]:
    """The row of a file; two to five candidates, and bounds in the files that have them."""
    place = FILES[name]
    count = 2 + (list(FILES).index(name) + number) % 4
    row = {
        "video": f"{_stem(place, number)}{SUFFIXES.get(place, '.mp4')}", "question": f"What happened in {name} {number}?",
        "candidates": CANDIDATES[:count], "answer": CANDIDATES[number % count],
    }  # fmt: skip
    return {**row, "start": 0.5 + 0.25 * number, "end": 1.5 + 0.25 * number} if name in BOUNDED else row


def _stem(place: str, number: int) -> str:
    if place.startswith("clevrer"):
        return f"video_1{number:04d}"
    return f"QX{number}ZT" if place.startswith("st") else f"clip_{number}"


def _make_videos(folder: Path, place: str, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{_stem(place, number)}{SUFFIXES.get(place, '.mp4')}"
        if path.suffix:
            codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(path.suffix, "libx264")
            write_video(
                path,
                frames_of(str(path.relative_to(folder.parent)), 2 * FPS),
                fps=FPS,
                codec=codec,
                container_options=SAME_BYTES,
            )
        else:
            write_frame_folder(path, frames_of(path.name, 9), pattern="%05d.jpg")
