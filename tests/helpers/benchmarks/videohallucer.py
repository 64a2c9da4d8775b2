"""A small VideoHallucer in the repository's layout: a folder for each category, with its pairs and videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluenet.testing.videos import write_video
from helpers.benchmarks.pictures import frames_of

CATEGORIES = (
    "object_relation", "temporal", "semantic_detail", "external_factual", "external_nonfactual", "interaction",
)  # fmt: skip
TYPES = ("subject", "object", "relation")


def make_videohallucer(folder: Path, *, pairs: int = 2) -> Path:
    """Returns `folder`. The videos of external_nonfactual lie with those of external_factual, whose basic questions it shares."""
    for category in CATEGORIES:
        videos = folder / category / "videos"
        videos.mkdir(parents=True)
        rows = [videohallucer_row(category, number) for number in range(pairs)]
        (folder / category / f"{category}.json").write_text(json.dumps(rows))
        for name in {row[side]["video"] for row in rows for side in ("basic", "hallucination")}:
            if category != "external_nonfactual":
                write_video(videos / name, frames_of(f"{category}/{name}", 8), fps=8)
    return folder


def videohallucer_row(category: str, number: int) -> dict[str, Any]:
    """A pair; that of semantic_detail is about two videos, and only object_relation says what it is about."""
    source = "external" if category.startswith("external") else category
    other = f"{number}_b.mp4" if category == "semantic_detail" else f"{number}_a.mp4"
    row = {
        "basic": {"video": f"{number}_a.mp4", "question": f"Is there a kettle in {source} {number}?", "answer": "yes"},
        "hallucination": {"video": other, "question": f"Is there a piano in {category} {number}?", "answer": "no"},
    }
    return {**row, "type": TYPES[number % 3]} if category == "object_relation" else row
