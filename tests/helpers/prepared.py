"""Prepared sets on disk without any video: random frames and invented questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cluenet.decoding import encode_frames
from cluenet.folders import write_manifest
from cluenet.prepared import (
    FORMAT,
    ClipWriter,
    PreparedClip,
    atomic_file,
    write_index,
    write_quarantine,
    write_questions,
)
from cluenet.records import Example, Frames
from helpers.models import clip, example


def prepared_set(
    folder: Path, *, clips: int, questions: Sequence[int] = (2, 3), seed: int = 0,
    make: Callable[[int], Example] = example, labels: dict[str, int] | None = None, make_clip: Callable[[int], Frames] = clip,
) -> Path:  # fmt: skip
    """`clips` clips with `questions[i % len(questions)]` questions each; `make(number)` invents a question, `make_clip(seed)`
    its frames."""
    keys, rows = [f"{folder.name}-{i:04d}" for i in range(clips)], []
    with atomic_file(folder / "clips" / "part-00000.parquet") as file:
        writer = ClipWriter(file)
        for i, key in enumerate(keys):
            frames = make_clip(seed + i)
            blob = encode_frames(frames, "lossless")
            times = frames.seconds_T.tolist()
            writer.write(PreparedClip(key, f"{key}.mp4", None, "0" * 64, 0.0, None, 1.0, "fake", blob, times))
            rows += [(i, key)] * questions[i % len(questions)]
        writer.close({})
    examples = [(_renamed(make(number), f"{folder.name}/{number}"), key) for number, (_, key) in enumerate(rows)]
    write_questions(folder, examples)
    write_index(folder, {key: ("part-00000.parquet", i) for i, key in enumerate(keys)})
    write_quarantine(folder, [])
    full = dict.fromkeys(("answer", "chain", "clues", "times", "boxes", "concepts"), len(rows))
    counts = {"in": len(rows), "ready": len(rows), "quarantined": 0}
    write_manifest(folder, {"format": FORMAT, "rows": counts, "labels": full if labels is None else labels})
    return folder


def _renamed(item: Example, name: str) -> Example:
    return replace(item, id=name)
