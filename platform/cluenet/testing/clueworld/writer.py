"""Writes a split to disk.

    videos/train-000/train-000017.mp4   H.264, yuv420p; a thousand videos per folder
    train.jsonl                         a question per line, as ms-swift and LLaMA-Factory write video conversations:
        {"id", "messages": [{"role": "user", "content": "<video>\\n<question>\\n(A) ..."},
                            {"role": "assistant", "content": "(B) ..."}], "videos": [<path>], "type", "options", "answer"}
        and "pair" of a question that is one of a pair
    train.clues.jsonl                   {"id", "clues", "distractors", "chain"} per question, for the clue source `file`
    train.manifest.json                 what was written, and the address of its settings; written last

Several splits may share a folder. Every file appears complete or not at all, so an interrupted run is continued.
"""

from __future__ import annotations

import json
import multiprocessing
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from cluenet.errors import DataError
from cluenet.folders import atomic_write_json, atomic_write_text, storage_errors
from cluenet.records import Example, VideoRef, content_hash
from cluenet.testing.clueworld.questions import questions_of
from cluenet.testing.clueworld.render import render_scene
from cluenet.testing.clueworld.settings import TYPES, YES_NO_TYPES, QuestionType, WorldSettings
from cluenet.testing.clueworld.splits import Split, scene_id, split_scene

VIDEOS_PER_FOLDER = 1000
VIDEOS_PER_TASK = 50
X264 = {"preset": "ultrafast", "crf": "18", "threads": "1"}  # several encoder threads would change the bytes

Progress = Callable[[int, int], None]
"""Called with the number of videos there are and the number there will be."""


def write_clueworld(
    folder: str | Path,
    split: Split,
    videos: int,
    settings: WorldSettings | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write the first `videos` scenes of a split into `folder`, unless they are there already; returns the questions' file.

    Raises DataError when the folder holds this split with other settings, StorageError when it cannot be written.
    """
    folder, settings = Path(folder).expanduser(), settings or WorldSettings()
    questions, manifest = folder / f"{split}.jsonl", folder / f"{split}.manifest.json"
    content = {"split": split, "videos": videos, "settings": settings.model_dump(mode="json")}
    address = content_hash(settings.hash, split, videos)
    if manifest.exists():
        _check_same(manifest, address)
        return questions
    write_videos(folder, split, videos, settings, workers=workers, progress=progress)
    examples = [example for index in range(videos) for example in scene_examples(folder, split, index, settings)]
    _write_lines(questions, (_message_row(folder, example) for example in examples))
    _write_lines(folder / f"{split}.clues.jsonl", map(_clue_row, examples))
    atomic_write_json(manifest, {**content, "questions": len(examples), "hash": address})
    return questions


def write_videos(
    folder: Path,
    split: Split,
    videos: int,
    settings: WorldSettings,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> int:
    """Encode those of the split's first `videos` scenes that are not there yet; returns how many were made.

    Several `workers` are processes started by `spawn`, so a script that asks for them guards its main module. Raises
    StorageError, and DataError when a worker dies.
    """
    missing = _missing(folder, split, videos)
    tasks = [missing[start : start + VIDEOS_PER_TASK] for start in range(0, len(missing), VIDEOS_PER_TASK)]
    done = videos - len(missing)
    for count in _run(tasks, (folder, split, settings), min(workers, len(tasks))):
        done += count
        if progress is not None:
            progress(done, videos)
    return len(missing)


def scene_examples(folder: Path, split: Split, index: int, settings: WorldSettings) -> list[Example]:
    """The questions of one scene, about the video where `write_videos` puts it."""
    default: Sequence[QuestionType] = YES_NO_TYPES if split == "hallucination" else TYPES
    types, most = settings.types or default, settings.questions_per_video
    video = VideoRef(str(folder / video_path(split, index)))
    return questions_of(split_scene(settings, split, index), scene_id(split, index), video, types, most)


def video_path(split: Split, index: int) -> Path:
    """Path of a scene's video within the folder."""
    return Path("videos") / f"{split}-{index // VIDEOS_PER_FOLDER:03d}" / f"{scene_id(split, index)}.mp4"


def encode(path: Path, frames_THWC: npt.NDArray[np.uint8], fps: int) -> None:
    """Write an H.264 video; complete or not at all."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with av.open(str(part), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options=X264)
            stream.height, stream.width = frames_THWC.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            for frame_HWC in frames_THWC:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
            container.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _missing(folder: Path, split: Split, videos: int) -> list[int]:
    there = {path.name for path in folder.glob(f"videos/{split}-*/*.mp4")}
    return [index for index in range(videos) if f"{scene_id(split, index)}.mp4" not in there]


def _run(tasks: list[list[int]], where: tuple[Path, Split, WorldSettings], workers: int) -> Iterator[int]:
    """How many videos each task made, as they end."""
    if workers <= 1:
        yield from (_encode_scenes(*where, task) for task in tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_encode_scenes, *where, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                f"clueworld: a process that encodes videos for {where[0]} died. Either memory ran out, or the program does "
                "not guard its main module with `if __name__ == '__main__':`. Run it again to continue, with workers: 1."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _encode_scenes(folder: Path, split: Split, settings: WorldSettings, indices: list[int]) -> int:
    with storage_errors(folder):
        for index in indices:
            path = folder / video_path(split, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, render_scene(split_scene(settings, split, index)), settings.fps)
    return len(indices)


def _check_same(manifest: Path, address: str) -> None:
    found = json.loads(manifest.read_text())
    if found.get("hash") != address:
        raise DataError(
            f"{manifest}: this folder holds {found.get('videos')} videos of split {found.get('split')} with settings "
            f"{found.get('settings')}, not those asked for. Choose another folder, or delete this one."
        )


def _message_row(folder: Path, example: Example) -> dict[str, Any]:
    lettered = [f"({chr(ord('A') + i)}) {option}" for i, option in enumerate(example.options)]
    assert isinstance(example.answer, int)
    return {
        "id": example.id,
        "messages": [
            {"role": "user", "content": "\n".join([f"<video>\n{example.question}", *lettered])},
            {"role": "assistant", "content": lettered[example.answer]},
        ],
        "videos": [Path(example.video.path).relative_to(folder).as_posix()],
        "type": example.type,
        "options": list(example.options),
        "answer": example.answer,
        **example.meta,
    }


def _clue_row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "clues": [clue.to_dict() for clue in example.clues or ()],
        "distractors": [clue.to_dict() for clue in example.distractors],
        "chain": example.chain,
    }


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    atomic_write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
