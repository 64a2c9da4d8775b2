"""CLEVRER in its official layout: question files, videos and annotations in folders of a thousand."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluenet.testing.videos import counting_frames, write_video

FIRST = {"train": 0, "validation": 10_000, "test": 15_000}
FRAMES = 128
ENTERS, HITS, EXITS = 20, 57, 100
"""Frames of the events of scene 0; in scene n all are n frames later."""

OBJECTS = [
    {"object_id": 0, "color": "blue", "material": "rubber", "shape": "sphere"},
    {"object_id": 1, "color": "red", "material": "metal", "shape": "cube"},
    {"object_id": 2, "color": "gray", "material": "metal", "shape": "cylinder"},
]


def make_clevrer(
    folder: Path, *, scenes: int = 2, splits: Sequence[str] = tuple(FIRST), missing: Collection[int] = (),
    annotated: bool = True,
) -> Path:  # fmt: skip
    """`scenes` scenes per split with 14 rows each. missing: scenes whose video is not there."""
    for split in splits:
        indices = range(FIRST[split], FIRST[split] + scenes)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.json").write_text(json.dumps([scene(split, index) for index in indices]))
        for index in indices:
            if index not in missing:
                write_clevrer_video(place(folder, "video", split, index, "mp4"), index)
            if annotated and split != "test":
                place(folder, "annotation", split, index, "json").write_text(json.dumps(annotation(index)))
    return folder


def place(folder: Path, what: str, split: str, index: int, suffix: str) -> Path:
    first = index // 1000 * 1000
    path = folder / f"{what}_{split}" / f"{what}_{first:05d}-{first + 1000:05d}" / f"{what}_{index:05d}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_clevrer_video(path: Path, index: int) -> Path:
    """Another content for every index."""
    frames_THWC = np.roll(counting_frames(32, height=32, width=48), index % 29, axis=0)
    return write_video(path, frames_THWC, fps=6.4, gop=8)


def annotation(index: int) -> dict[str, Any]:
    """Object 1 comes in and hits object 0; object 2 leaves."""
    later = index % 1000
    moments = [_moment(frame, frame >= ENTERS + later, frame < EXITS + later) for frame in range(FRAMES)]
    return {
        "scene_index": index, "video_filename": f"video_{index:05d}.mp4", "object_property": [dict(one) for one in OBJECTS],
        "motion_trajectory": moments,
        "collision": [{"object_ids": [1, 0], "frame_id": HITS + later, "location": [0.1, 0.2, 0.3]}],
    }  # fmt: skip


def _moment(frame: int, *seen: bool) -> dict[str, Any]:
    objects = [
        {"object_id": number, "location": [0.0, 0.0, 0.0], "orientation": [0, 0, 0], "velocity": [0.0, 0.0, 0.0],
         "angular_velocity": [0.0, 0.0, 0.0], "inside_camera_view": inside}
        for number, inside in enumerate((True, *seen))
    ]  # fmt: skip
    return {"frame_id": frame, "objects": objects}


def scene(split: str, index: int) -> dict[str, Any]:
    """Five descriptive questions and nine options of three others; the test split has neither answers nor programs."""
    asked = [*_descriptive(), *_multiple_choice(5)]
    for question in asked if split == "test" else ():
        for part in (question, *question.get("choices", ())):
            for hidden in ("answer", "program", "question_subtype"):
                part.pop(hidden, None)
    return {"scene_index": index, "video_filename": f"video_{index:05d}.mp4", "questions": asked}


def _descriptive() -> list[dict[str, Any]]:
    rows = (
        ("count", "How many collisions happen?", "1"),
        ("exist", "Is there a green object that enters the scene?", "no"),
        ("query_color", "What color is the object to exit the scene?", "gray"),
        ("query_material", "What is the material of the object to collide with the sphere?", "metal"),
        ("query_shape", "What is the shape of the last object to enter the scene?", "cube"),
    )
    return [
        {"question_id": number, "question": text, "question_type": "descriptive", "question_subtype": subtype,
         "program": ["events", subtype], "answer": answer}
        for number, (subtype, text, answer) in enumerate(rows)
    ]  # fmt: skip


def _multiple_choice(first: int) -> list[dict[str, Any]]:
    rows: list[tuple[str, str, list[tuple[str, str]]]] = [
        ("explanatory", "Which of the following is responsible for the collision between the cube and the sphere?", [
            ("the presence of the red metal cube", "correct"), ("the cube's entering the scene", "correct"),
            ("the presence of the gray cylinder", "wrong"), ("the cylinder's exit", "wrong"),
        ]),
        ("predictive", "What will happen next?", [
            ("The sphere exits the scene", "correct"), ("The cube and the cylinder collide", "wrong"),
        ]),
        ("counterfactual", "Without the red cube, which of the following will not happen?", [
            ("The gray object exits the scene", "wrong"), ("The sphere and the cylinder collide", "wrong"),
            ("The sphere and the cube collide", "correct"),
        ]),
    ]  # fmt: skip
    return [
        {"question_id": number, "question": text, "question_type": kind, "program": ["events"], "choices": [
            {"choice_id": place, "choice": choice, "program": ["objects"], "answer": answer}
            for place, (choice, answer) in enumerate(choices)
        ]}
        for number, (kind, text, choices) in enumerate(rows, start=first)
    ]  # fmt: skip
