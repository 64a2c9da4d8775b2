"""A miniature of STAR in the official format: questions with situation graphs, class files, rates, small videos."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from cluenet.testing.videos import counting_frames, write_video

CLASSES = {
    "object_classes.txt": ("o000 person", "o003 closet/cabinet", "o015 box", "o021 sofa/couch", "o027 towel"),
    "relationship_classes.txt": ("r002 in_front_of", "r009 holding", "r015 sitting_on"),
    "action_classes.txt": ("a027 take a towel/s from somewhere", "a031 hold a box", "a033 put a box somewhere"),
    "action_mapping.txt": ("a027 v010 o027", "a031 v004 o015", "a033 v007 o015"),
    "verb_classes.txt": ("v004 hold", "v007 put", "v010 take"),
}
VIDEOS = {"train": ("TRN01", "TRN02"), "val": ("VAL01", "VAL02"), "test": ("TST01", "TST02")}
MISSING = {"train": "TRN09", "val": "VAL09", "test": "TST09"}
TYPES = ("Interaction", "Sequence", "Prediction", "Feasibility")
THINGS = ("closet/cabinet", "box", "sofa/couch", "towel")
FPS, FRAMES, WIDTH, HEIGHT = 8, 24, 64, 48


def make_star(folder: Path) -> Path:
    """In every split 8 questions about each of 2 videos of its own and about one that is missing; test without answers."""
    (folder / "Charades_v1_480").mkdir(parents=True)
    write_classes(folder / "STAR_classes")
    rates = {f"{video}.mp4": float(FPS) for videos in VIDEOS.values() for video in videos}
    (folder / "STAR_classes" / "video_fps").write_bytes(pickle.dumps(rates))
    frames_THWC = counting_frames(FRAMES * len(rates), height=HEIGHT, width=WIDTH)
    for number, name in enumerate(rates):
        write_video(folder / "Charades_v1_480" / name, frames_THWC[number * FRAMES :][:FRAMES], fps=FPS)
    for split, videos in VIDEOS.items():
        rows = [question(video, number) for video in (*videos, MISSING[split]) for number in range(8)]
        (folder / f"STAR_{split}.json").write_text(
            json.dumps([hidden(row) for row in rows] if split == "test" else rows)
        )
    return folder


def write_classes(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, lines in CLASSES.items():
        (folder / name).write_text("\n".join(lines))
    return folder


def question(video: str, number: int) -> dict[str, Any]:
    """About the clip from 0.5 to 2 seconds: frame keys 5 to 17."""
    kind, right = TYPES[number % 4], THINGS[number % len(THINGS)]
    return {
        "question_id": f"{kind}_T{1 + number % 3}_{video}{number}",
        "question": "Which object did the person put down after they held the towel?",
        "video_id": video, "start": 0.5, "end": 2.0, "answer": f"The {right}.",
        "question_program": [{"function": "Actions", "value_input": ["Situations"]}],
        "choices": [
            {"choice_id": place, "choice": f"The {thing}.", "choice_program": []} for place, thing in enumerate(THINGS)
        ],
        "situations": {"000005": situation(), "000009": situation(), "000013": {**situation(), "actions": ["a033"]}},
    }  # fmt: skip


def situation() -> dict[str, Any]:
    """One annotated frame: a person takes a towel in front of a sofa that has no box."""
    return {
        "rel_pairs": [["o000", "o027"], ["o021", "o000"]], "rel_labels": ["r009", "r002"], "actions": ["a027"],
        "bbox": [[16.0, 12.0, 32.0, 36.0], [24.0, 12.0, 40.0, 24.0], None], "bbox_labels": ["o000", "o027", "o021"],
    }  # fmt: skip


def hidden(row: dict[str, Any]) -> dict[str, Any]:
    """The row as the test split has it."""
    return {name: value for name, value in row.items() if name not in ("answer", "situations")}
