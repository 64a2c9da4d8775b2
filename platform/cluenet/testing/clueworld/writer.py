"""Writes a split to disk: encoded videos, questions as `messages` rows, clues in the `file` clue source's format.

    videos/00000-00250/00017.mp4        H.264, yuv420p
    test.jsonl                          {"id", "messages", "videos", "options", "answer", "type"} per question
    test.clues.jsonl                    {"id", "clues", "distractors", "chain"} per question
    manifest.json                       settings, counts; written last
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import av
import numpy as np

from cluenet.records import Example, VideoRef
from cluenet.testing.clueworld.questions import questions_of
from cluenet.testing.clueworld.render import render
from cluenet.testing.clueworld.settings import TYPES, YES_NO_TYPES, QuestionType, WorldSettings
from cluenet.testing.clueworld.splits import Split, scene_id, split_scene

SHARD = 250  # scenes per folder and per task
X264 = {"preset": "ultrafast", "crf": "18", "threads": "1"}


def split_folder(root: Path, split: Split, videos: int, settings: WorldSettings) -> Path:
    """Where a split with these settings lives: its content address below `root`."""
    return root / f"{split}-{videos}-{settings.hash[:10]}"


def write_clueworld(
    root: str | Path, split: Split, videos: int, settings: WorldSettings | None = None,
    *, workers: int | None = None, progress: Callable[[int, int], None] | None = None,
) -> Path:  # fmt: skip
    """The folder of the split, made if it is not there yet; an interrupted one is continued. `progress(done, total)`."""
    settings = settings or WorldSettings()
    folder = split_folder(Path(root).expanduser(), split, videos, settings)
    if (folder / "manifest.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _encode_all(folder, split, videos, settings, workers or os.cpu_count() or 1, progress)
    count = _write_questions(folder, split, videos, settings)
    manifest = {"split": split, "videos": videos, "types": list(types_of(split, settings)), "questions": count, "settings": settings.model_dump()}
    _write(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return folder


def types_of(split: Split, settings: WorldSettings) -> Sequence[QuestionType]:
    """What is asked: as the settings say, else the yes/no pairs in `hallucination` and all other types elsewhere."""
    return settings.types or (YES_NO_TYPES if split == "hallucination" else TYPES)


def scene_examples(folder: Path, split: Split, index: int, settings: WorldSettings) -> list[Example]:
    """The questions of one scene, its video being where `write_clueworld` puts it."""
    scene, video = split_scene(settings, split, index), VideoRef(str(folder / video_path(index)))
    return questions_of(scene, scene_id(split, index), video, types_of(split, settings), settings.questions_per_video)


def video_path(index: int) -> Path:
    first = index // SHARD * SHARD
    return Path("videos") / f"{first:06d}-{first + SHARD:06d}" / f"{index:06d}.mp4"


def _encode_all(folder: Path, split: Split, videos: int, settings: WorldSettings, workers: int, progress) -> None:
    starts = [s for s in range(0, videos, SHARD) if not (folder / video_path(s).parent / ".done").exists()]
    done = videos - sum(min(SHARD, videos - s) for s in starts)
    if workers == 1 or len(starts) <= 1:
        for start in starts:
            done += _encode_shard(folder, split, start, min(start + SHARD, videos), settings)
            if progress:
                progress(done, videos)
        return
    with ProcessPoolExecutor(min(workers, len(starts)), mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_encode_shard, folder, split, s, min(s + SHARD, videos), settings) for s in starts]
        for task in as_completed(tasks):
            done += task.result()
            if progress:
                progress(done, videos)


def _encode_shard(folder: Path, split: Split, start: int, stop: int, settings: WorldSettings) -> int:
    """Encode scenes start..stop-1; the `.done` mark comes last, so a killed shard is made again."""
    target = folder / video_path(start).parent
    target.mkdir(parents=True, exist_ok=True)
    for index in range(start, stop):
        encode(folder / video_path(index), render(split_scene(settings, split, index)), settings.fps)
    (target / ".done").touch()
    return stop - start


def encode(path: Path, frames_THWC: np.ndarray, fps: int) -> None:
    """H.264 in an mp4; atomic."""
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=fps, options=X264)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames_THWC:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    partial.replace(path)


def _write_questions(folder: Path, split: Split, videos: int, settings: WorldSettings) -> int:
    examples = [e for i in range(videos) for e in scene_examples(folder, split, i, settings)]
    _write(folder / f"{split}.jsonl", "".join(json.dumps(_message_row(folder, e)) + "\n" for e in examples))
    _write(folder / f"{split}.clues.jsonl", "".join(json.dumps(_clue_row(e)) + "\n" for e in examples))
    return len(examples)


def _message_row(folder: Path, example: Example) -> dict[str, Any]:
    options = "\n".join(f"({chr(65 + i)}) {option}" for i, option in enumerate(example.options))
    answer = f"({chr(65 + int(example.answer or 0))}) {example.answer_text}"
    return {
        "id": example.id,
        "messages": [
            {"role": "user", "content": f"<video>\n{example.question}\n{options}"},
            {"role": "assistant", "content": answer},
        ],
        "videos": [str(Path(example.video.path).relative_to(folder))],
        "options": list(example.options),
        "answer": example.answer,
        "type": example.type,
    }


def _clue_row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "clues": [clue.to_dict() for clue in example.clues or ()],
        "distractors": [clue.to_dict() for clue in example.distractors],
        "chain": example.chain,
    }


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)

