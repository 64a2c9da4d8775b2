"""`cluenet run` on a folder that was not made for it: a NExT-QA csv, and videos of many sizes, rates and defects."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluenet.prepared import PreparedSet
from cluenet.testing.videos import (
    counting_frames,
    read_number,
    write_audio_only,
    write_empty,
    write_frame_folder,
    write_garbage,
    write_truncated,
    write_video,
)
from helpers.environments import HERE

HEADER = ("video", "frame_count", "width", "height", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")
OPTIONS = ("tie her shoe", "greet the dog", "sit down", "pick up toy", "dance")
TYPES = ("CW", "TN", "DL")
UNEVEN = [0.0, 0.1, 0.2, 0.9, 1.0, 1.1, 1.2, 1.9, 2.0, 2.1]
GOOD = ("1001", "1002", "1003", "2001", "2002", "2003", "2004")
BAD = {"3001": "corrupt", "3002": "corrupt", "3003": "empty", "3004": "no_video_stream", "3005": "missing"}


def make_videos(folder: Path) -> None:
    """Sizes, rates and containers differ; variable rate, rotated, a folder of frames, one in the map's subfolder; all of BAD."""
    (folder / "1164").mkdir(parents=True)
    write_video(folder / "1001.mp4", counting_frames(30, height=48, width=80), fps=15)
    write_video(folder / "1002.mp4", counting_frames(50, height=96, width=64), fps=25, bframes=2, gop=10, audio=True)
    write_video(folder / "1003.mkv", counting_frames(60, height=72, width=128), fps=29.97)
    write_video(folder / "2001.mp4", counting_frames(10), fps=10, seconds=UNEVEN)
    write_video(folder / "2002.mp4", counting_frames(20, height=48, width=64), fps=10, rotation=90)
    write_frame_folder(folder / "2003", counting_frames(12))
    write_video(folder / "1164" / "2004.mp4", counting_frames(24), fps=12)
    write_truncated(folder / "3001.mp4", folder / "1001.mp4")
    write_garbage(folder / "3002.mp4")
    write_empty(folder / "3003.mp4")
    write_audio_only(folder / "3004.mp4")
    (folder / "map_vid_vidorID.json").write_text(json.dumps({"2004": "1164/2004", "3005": "1164/3005"}))


def questions(videos: Sequence[str], each: int) -> list[tuple[Any, ...]]:
    asked = [(video, qid) for video in videos for qid in range(each)]
    return [
        (video, 30, 64, 64, f"why did she {OPTIONS[i % 5]}", i % 5, qid, TYPES[i % 3], *OPTIONS)
        for i, (video, qid) in enumerate(asked)
    ]


def write_csv(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def recipe() -> dict[str, Any]:
    def split(name: str) -> list[dict[str, Any]]:
        return [{"name": "nextqa", "split": name, "folder": "csv", "videos": "videos", "fps": 6}]

    stage = {"steps": 2, "clips_per_batch": 4, "questions_per_clip": 2, "lr": 0.001}
    return {
        "name": "films", "store": "store", "runs": "runs",
        "data": {
            "sampler": {"name": "uniform", "frames": 4}, "size": {"max_pixels": 4096, "multiple": 16},
            "decode_workers": 1,  # of few videos; each costs seconds to start
            "train": split("train"), "validation": split("val"), "test": split("test"),
            "allow_overlap": ["nextqa"],  # few videos for three splits
        },
        "model": {
            "backbone": {
                "name": "tiny", "hidden": 64, "layers": 2, "vision_hidden": 32, "perception_steps": 1, "copy_steps": 0,
            },
            "clue_extractor": "none", "clue_filter": "keep_all", "reasoner": {"name": "direct", "scoring": "likelihood"},
        },
        "train": {"stage1": stage, "stage2": {"steps": 0}, "validation": {"every": 2}},
        "evaluate": {"bootstrap": 100},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training rows: 28 about good videos, 10 about bad ones, and 2 that are wrong themselves."""
    folder = tmp_path_factory.mktemp("nextqa")
    make_videos(folder / "videos")
    (folder / "csv").mkdir()
    wrong = [("1001", 30, 64, 64, "why", 7, 90, "CW", *OPTIONS), ("1001", 30, 64, 64, "why", 0, 91, "XX", *OPTIONS)]
    write_csv(folder / "csv" / "train.csv", [*questions(GOOD, 4), *wrong, *questions(list(BAD), 2)])
    write_csv(folder / "csv" / "val.csv", questions(["1002", "2002"], 2))
    write_csv(folder / "csv" / "test.csv", questions(["1003", "2001", "2003", "3003"], 3))
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe()))
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> subprocess.CompletedProcess[str]:
    done = HERE.call("run", "r.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def prepared(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and manifest of every split."""
    found = [
        (path.parent, json.loads(path.read_text())) for path in (folder / "store" / "prepared").glob("*/manifest.json")
    ]
    return {manifest["dataset"]["split"]: (path, manifest) for path, manifest in found}


@pytest.mark.usefixtures("finished")
def test_every_row_is_kept_or_quarantined_with_its_reason(folder: Path) -> None:
    sets = prepared(folder)
    assert {name: manifest["rows"] for name, (_, manifest) in sets.items()} == {
        "train": {"in": 40, "ready": 28, "quarantined": 12},
        "val": {"in": 4, "ready": 4, "quarantined": 0},
        "test": {"in": 12, "ready": 9, "quarantined": 3},
    }
    train, manifest = sets["train"]
    reasons = {
        "corrupt": 4,
        "empty": 2,
        "no_video_stream": 2,
        "missing": 2,
        "answer_outside_options": 1,
        "unknown_type": 1,
    }
    assert manifest["quarantined"]["reasons"] == reasons
    assert manifest["videos"] == {"files": 12, "decoded": 7, "failed": 5}
    rows = [json.loads(line) for line in (train / "quarantine.jsonl").read_text().splitlines()]
    told = {row["id"]: row["reason"] for row in rows}
    assert told == {f"{video}_{qid}": reason for video, reason in BAD.items() for qid in range(2)} | {
        "1001_90": "answer_outside_options", "1001_91": "unknown_type",
    }  # fmt: skip


@pytest.mark.usefixtures("finished")
def test_every_video_keeps_its_shape_and_its_frames(folder: Path) -> None:
    train = PreparedSet(prepared(folder)["train"][0])
    frames = {Path(train.examples_of(key)[0].video.path).stem: train.frames(key) for key in train.clip_keys}
    assert {name: found.frames_THWC.shape[1:3] for name, found in frames.items()} == {
        "1001": (48, 80), "1002": (64, 48), "1003": (48, 80), "2001": (64, 64), "2002": (64, 48), "2003": (64, 64),
        "2004": (64, 64),
    }  # fmt: skip
    assert [read_number(frame) for frame in frames["2001"].frames_THWC] == [1, 3, 6, 8]
    assert frames["2001"].seconds_T.tolist() == pytest.approx([UNEVEN[number] for number in (1, 3, 6, 8)], abs=1e-3)
    assert frames["2003"].duration_seconds == pytest.approx(2.0)


def test_it_says_what_can_and_cannot_be_taught_without_clue_labels(finished: subprocess.CompletedProcess[str]) -> None:
    for line in (
        "stage1: answer x 1: 28 of 28 questions have labels",
        "stage1: chain x 1: masked everywhere, none of 28 questions has labels",
        "stage1: concept x 2: does not apply, the reasoner `direct` reads no clues",
        "stage1: attention x 0.5: does not apply, the reasoner `direct` reads no clues",
        "perception_steps=1 taught nothing: no training clip has clues with concepts and boxes",
    ):
        assert line in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_run_is_complete(folder: Path, finished: subprocess.CompletedProcess[str]) -> None:
    (run,) = (folder / "runs").iterdir()
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert "validation/accuracy" in lines[1]
    results = json.loads((run / "evaluation" / "nextqa-test" / "results.json").read_text())
    assert results["accuracy"]["overall"]["n"] == 9
    assert set(results["accuracy"]["by_type"]) == set(TYPES)
    assert results["chance"] == pytest.approx(0.2)
    assert (run / "manifest.json").is_file()
    assert str(run / "report.html") in finished.stdout


def test_a_test_set_about_training_videos_is_told_and_kept(
    folder: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    said = "data.test.0 (nextqa test) shares 3 of its 3 videos with data.train.0 (nextqa train): 1003.mkv has the same content"
    assert f"allowed by data.allow_overlap: {said}" in finished.stderr
    (manifest,) = (folder / "runs").glob("*/manifest.json")
    overlap = {"test": "data.test.0 (nextqa test)", "seen": "data.train.0 (nextqa train)", "videos": 3, "of": 3}
    assert json.loads(manifest.read_text())["overlaps"] == [overlap]
    refused = HERE.call("train", "r.yaml", "data.allow_overlap=[]", "train.stage1.steps=1", cwd=folder)
    assert refused.returncode == 2
    assert f"data.test.0: {said}" in refused.stderr
    assert "data.allow_overlap: [nextqa]" in refused.stderr
    assert "Ray:" not in refused.stderr, "it was not even started"
    assert len(list((folder / "runs").iterdir())) == 1


@pytest.mark.usefixtures("finished")
def test_clue_losses_without_labels_are_refused_before_any_worker_starts(folder: Path) -> None:
    before = sorted((folder / "runs").iterdir())
    clue_aware = ["model.clue_extractor=latent_slots", "model.reasoner=evidence"]
    done = HERE.call("run", "r.yaml", *clue_aware, "train.stage1.losses={answer: 0, concept: 2}", cwd=folder)
    assert done.returncode == 2
    for part in (
        "stage1 has nothing to learn from", "concept x 2: masked everywhere, none of 28 questions has labels",
        "answer 28, boxes 0, chain 0, clues 0", "`data.clue_source`", "`train.stage1.steps: 0`",
    ):  # fmt: skip
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert "Ray:" not in done.stderr, "it was not even started"
    assert sorted((folder / "runs").iterdir()) == before
