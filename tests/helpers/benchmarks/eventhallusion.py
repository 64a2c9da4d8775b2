"""A small EventHallusion in the repository's layout: questions/<kind>_questions.json, and videos/<kind>/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluenet.testing.videos import write_video
from helpers.benchmarks.pictures import frames_of

ANSWERS = {"entire": "No.", "misleading": "No.", "interleave": "Yes."}


def make_eventhallusion(folder: Path, *, videos: int = 2) -> Path:
    """Returns `folder`. The first video of kind `entire` has two questions."""
    (folder / "questions").mkdir(parents=True)
    for kind in ANSWERS:
        records = [eventhallusion_record(kind, number) for number in range(1, videos + 1)]
        (folder / "questions" / f"{kind}_questions.json").write_text(json.dumps(records))
        (folder / "videos" / kind).mkdir(parents=True)
        for record in records:
            write_video(folder / "videos" / kind / f"{record['id']}.mp4", frames_of(record["id"], 8), fps=8)
    return folder


def eventhallusion_record(kind: str, number: int) -> dict[str, Any]:
    count = 2 if (kind, number) == ("entire", 1) else 1
    told = {"unexpected": "The bird takes the fish."} if kind == "interleave" else {"bias": "A man eats a fish."}
    return {
        "id": f"{kind}_{number:03d}", "category": "food&drink", "length": "00:01",
        "event_info": {"object": ["person", "fish"], "scene": "At a table.", "caption": "A man holds a fish.", **told},
        "questions": [
            {"type": "hallucination", "question": f"Is the man eating part {part} of it?", "answer": ANSWERS[kind]}
            for part in range(count)
        ],
    }  # fmt: skip
