"""ClueWorld on disk: the same bytes each time, complete or not there, continued, found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cluenet.errors import DataError, StorageError
from cluenet.testing.clueworld import WorldSettings, render_scene, scene_examples, split_scene, write_clueworld, writer
from cluenet.testing.clueworld.writer import video_path, write_videos

DEFAULT = WorldSettings()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_same_settings_give_the_same_bytes_with_any_number_of_workers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "VIDEOS_PER_TASK", 3)
    write_clueworld(tmp_path / "a", "test", 8)
    write_clueworld(tmp_path / "b", "test", 8, workers=2)
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert first == second
    assert sorted(first) == [
        "test.clues.jsonl", "test.jsonl", "test.manifest.json", *(str(video_path("test", i)) for i in range(8)),
    ]  # fmt: skip
    write_clueworld(tmp_path / "c", "test", 8, WorldSettings(seed=1))
    assert files(tmp_path / "c")["test.jsonl"] != first["test.jsonl"]


@pytest.mark.parametrize(("cell", "noise", "limit"), [(16, 0, 4), (32, 0, 3), (16, 12, 10)])
def test_videos_are_h264_and_show_the_scene(tmp_path: Path, cell: int, noise: float, limit: float) -> None:
    settings = WorldSettings(cell=cell, noise=noise, fps=8)
    write_clueworld(tmp_path, "train", 2, settings)
    expected = render_scene(split_scene(settings, "train", 1))
    with av.open(str(tmp_path / video_path("train", 1))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = list(container.decode(stream))
    assert [float(frame.time) for frame in frames] == [i / 8 for i in range(32)]
    decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < limit


def test_rows_are_conversations_and_clues_are_keyed_by_their_ids(tmp_path: Path) -> None:
    questions = write_clueworld(tmp_path, "test", 3)
    examples = [example for index in range(3) for example in scene_examples(tmp_path, "test", index, DEFAULT)]
    assert [row["id"] for row in rows(questions)] == [e.id for e in examples]
    for row, clues, example in zip(rows(questions), rows(tmp_path / "test.clues.jsonl"), examples, strict=True):
        lettered = [f"({letter}) {option}" for letter, option in zip("ABCDE", example.options, strict=False)]
        assert row == {
            "id": example.id,
            "messages": [
                {"role": "user", "content": "\n".join(["<video>", example.question, *lettered])},
                {"role": "assistant", "content": lettered[example.answer]},
            ],
            "videos": [os.path.relpath(example.video.path, tmp_path)],
            "type": example.type,
            "options": list(example.options),
            "answer": example.answer,
        }
        assert clues == {
            "id": example.id,
            "clues": [clue.to_dict() for clue in example.clues or ()],
            "distractors": [clue.to_dict() for clue in example.distractors],
            "chain": example.chain,
        }


def test_what_is_complete_is_found_again_at_once(tmp_path: Path, monkeypatch) -> None:
    questions = write_clueworld(tmp_path, "test", 3)
    before = stamps(tmp_path)
    monkeypatch.setattr(writer, "split_scene", None)  # nothing is simulated again
    assert write_clueworld(tmp_path, "test", 3) == questions
    assert stamps(tmp_path) == before


def test_splits_share_a_folder(tmp_path: Path) -> None:
    write_clueworld(tmp_path, "train", 2)
    write_clueworld(tmp_path, "hallucination", 1)
    asked = rows(tmp_path / "hallucination.jsonl")
    assert {row["pair"] for row in asked} == {
        f"hallucination-000000-{kind}-pair0" for kind in ("exists_object", "exists_event")
    }
    assert {row["type"] for row in asked} == {"exists_object", "exists_event"}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        f"{split}.{kind}" for split in ("train", "hallucination") for kind in ("jsonl", "clues.jsonl", "manifest.json")
    }


def test_other_settings_do_not_mix_with_what_is_there(tmp_path: Path) -> None:
    write_clueworld(tmp_path, "train", 2)
    for videos, settings in ((3, DEFAULT), (2, WorldSettings(seed=1)), (2, WorldSettings(types=("who",)))):
        with pytest.raises(
            DataError, match=r"train\.manifest\.json: this folder holds 2 videos of split train .*another folder"
        ):
            write_clueworld(tmp_path, "train", videos, settings)


def test_an_interrupted_run_leaves_no_half_files_and_is_continued(tmp_path: Path, monkeypatch) -> None:
    render, calls = render_scene, []

    def failing(scene):
        calls.append(scene)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render(scene)

    monkeypatch.setattr(writer, "render_scene", failing)
    with pytest.raises(KeyboardInterrupt):
        write_clueworld(tmp_path, "train", 6)
    done = stamps(tmp_path)
    assert sorted(done) == [tmp_path / video_path("train", i) for i in range(3)]
    seen: list[tuple[int, int]] = []
    write_clueworld(tmp_path, "train", 6, progress=lambda *state: seen.append(state))
    assert len(calls) == 4 + 3
    assert seen == [(6, 6)]
    assert {path: stamps(tmp_path)[path] for path in done} == done
    write_clueworld(tmp_path / "whole", "train", 6)
    assert files(tmp_path / "whole")["train.jsonl"] == (tmp_path / "train.jsonl").read_bytes()


def test_an_encoder_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "X264", {"preset": "no such preset"})
    with pytest.raises(av.error.FFmpegError):
        write_videos(tmp_path, "train", 1, DEFAULT)
    assert not files(tmp_path)


def test_progress_counts_up_to_all_videos(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "VIDEOS_PER_TASK", 2)
    seen: list[tuple[int, int]] = []
    assert write_videos(tmp_path, "train", 5, DEFAULT, progress=lambda *state: seen.append(state)) == 5
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert write_videos(tmp_path, "train", 5, DEFAULT) == 0
    assert write_videos(tmp_path, "train", 6, DEFAULT) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/world: a part of the path is a file, not a folder"):
        write_clueworld(tmp_path / "file" / "world", "train", 1)


def test_a_worker_that_dies_is_explained(tmp_path: Path, monkeypatch) -> None:
    class Dying(writer.ProcessPoolExecutor):
        def submit(self, *_: Any, **__: Any):
            raise BrokenProcessPool("a child process terminated abruptly")

    monkeypatch.setattr(writer, "ProcessPoolExecutor", Dying)
    monkeypatch.setattr(writer, "VIDEOS_PER_TASK", 1)
    with pytest.raises(DataError, match=r"died\. .*__main__.*workers: 1"):
        write_clueworld(tmp_path, "train", 2, workers=2)


def test_nothing_of_it_needs_torch_or_ray() -> None:
    check = "import sys, cluenet.testing.clueworld; print({'torch', 'ray', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
