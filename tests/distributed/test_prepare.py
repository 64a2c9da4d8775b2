"""Datasets prepared by Ray Data: exact accounts over good and bad videos, reuse, resuming after kill -9, full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluenet.data.prepare import prepare
from cluenet.errors import ClusterError, DataError, StorageError
from cluenet.folders import read_manifest
from cluenet.prepared import PreparedSet, _is_locked
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.records import Clue, Example, Quarantined, VideoRef
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
from helpers.full_disk import MARK
from helpers.listed import openers, openings, write_rows

pytestmark = pytest.mark.usefixtures("ray_session")
FPS = 10


def question(name: str, video: Path, start: float = 0.0, end: float | None = None, **changes) -> Example:
    fps = FPS if video.is_dir() else None
    values = {"options": ("yes", "no"), "answer": 0, "type": name.rstrip("0123456789"), **changes}
    return Example(name, "listed", VideoRef(str(video), start, end, fps), "does it move?", **values)


def recipe(
    tmp_path: Path, rows: list, *, store: str = "store", delay_seconds: float = 0.0, plugins=("helpers.listed",), **data
) -> Recipe:
    file = write_rows(tmp_path / "rows.json", rows)
    logged = {"name": "logged", "log": str(tmp_path / "openings.log"), "delay_seconds": delay_seconds}
    values = {
        "reader": logged, "fallback_reader": None, "sampler": {"name": "uniform", "frames": 4},
        "size": {"height": 32, "width": 32}, "train": [{"name": "listed", "file": str(file)}], **data,
    }  # fmt: skip
    return Recipe.from_dict({"plugins": plugins, "store": str(tmp_path / store), "data": values})


def prepared(made: Recipe) -> Path:
    return prepare(made, made.data.train[0])


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty good videos of 2 s and one of every bad kind."""
    folder = tmp_path_factory.mktemp("videos")
    frames = counting_frames(2 * FPS)
    for number in range(20):
        write_video(folder / f"good{number:02d}.mp4", np.roll(frames, number, axis=0), fps=FPS, gop=5)
    good = folder / "good00.mp4"
    uneven = [0.0, 0.1, 0.2, 0.9, 1.0, 1.1, 1.2, 1.9, 2.0, 2.1]
    write_video(folder / "uneven.mp4", frames[:10], fps=FPS, seconds=uneven)
    write_video(folder / "rotated.mp4", counting_frames(20, height=48, width=64), fps=FPS, rotation=90)
    write_frame_folder(folder / "frames", frames)
    write_truncated(folder / "truncated.mp4", good)
    write_garbage(folder / "garbage.mp4")
    write_empty(folder / "empty.mp4")
    write_audio_only(folder / "sound.mp4")
    return folder


def mixed(videos: Path) -> list[Example | Quarantined]:
    good = [question(f"plain{n}", videos / f"good{n:02d}.mp4") for n in range(4)]
    clips = [question(f"clip{n}", videos / "good00.mp4", start, start + 0.5) for n, start in enumerate((0.2, 1.0, 1.0))]
    odd = [question(f"odd{n}", videos / name) for n, name in enumerate(("uneven.mp4", "rotated.mp4", "frames"))]
    names = ("truncated.mp4", "garbage.mp4", "empty.mp4", "sound.mp4", "nowhere.mp4")
    bad = [question(f"bad{n}", videos / name) for n, name in enumerate(names)]
    twice = [question("bad7", videos / "empty.mp4", answer=None), question("bad8", videos / "good01.mp4", 60.0)]
    row = Quarantined("row 9", "listed", "", "malformed", "no question")
    labelled = question("plain9", videos / "good01.mp4", clues=(Clue("it moves", 0.0, 1.0),), chain="it moves, so yes")
    return [row, *bad, *good, *clips, *odd, *twice, labelled]


class Counting(Progress):
    shown: list[tuple[str, int, int | None]] = []

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.shown.append((self.title, self.done, self.total))


class TestAccounts:
    @pytest.fixture(scope="class")
    def folder(self, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        made = recipe(tmp_path_factory.mktemp("mixed"), mixed(videos))
        return prepare(made, made.data.train[0], progress=Counting)

    def test_progress_counts_every_video(self, folder: Path) -> None:
        assert Counting.shown == [("Reading listed train", 19, None), ("Decoding listed train", 12, 12)]

    def test_every_row_is_ready_or_quarantined_with_its_reason(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        assert manifest["rows"] == {"in": 19, "ready": 11, "quarantined": 8}
        reasons = {"corrupt": 2, "empty": 2, "no_video_stream": 1, "missing": 1, "outside": 1, "malformed": 1}
        assert manifest["quarantined"]["reasons"] == reasons
        by_reader = {key: value for key, value in reasons.items() if key != "malformed"}
        assert manifest["quarantined"]["readers"] == {"logged": dict(sorted(by_reader.items()))}
        assert manifest["types"] == {"clip": 3, "odd": 3, "plain": 5}
        assert manifest["labels"] == {"answer": 11, "chain": 1, "clues": 1, "times": 1, "boxes": 0, "concepts": 0}

    def test_files_and_clips_are_counted(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        assert manifest["videos"] == {"files": 12, "decoded": 7, "failed": 5}
        clips = manifest["clips"]
        assert (clips["asked"], clips["ready"], clips["failed"], clips["distinct"]) == (15, 9, 6, 9)
        assert clips["per_file"] == {"1": 10, "2": 1, "3": 1}
        assert sum(clips["reasons"].values()) == 6

    def test_quarantine_keeps_the_order_of_the_rows(self, folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == ["row 9", "bad0", "bad1", "bad2", "bad3", "bad4", "bad7", "bad8"]
        assert {row["reader"] for row in rows[1:]} == {"logged"}
        assert "nowhere.mp4" in rows[5]["detail"]
        assert [row["id"] for row in rows if row["hidden"]] == ["bad7"], (
            "its answer is not public, so it counts nowhere"
        )

    def test_every_file_is_opened_once_for_all_its_clips(self, folder: Path) -> None:
        paths = openings(folder.parents[2] / "openings.log")
        assert sorted(paths) == sorted(set(paths))
        assert len(paths) == read_manifest(folder)["decoding"]["openings"] == 12

    def test_questions_come_back_equal(self, folder: Path, videos: Path) -> None:
        ready = [row for row in mixed(videos) if row.id not in {"row 9"} and not row.id.startswith("bad")]
        assert PreparedSet(folder).examples() == ready

    def test_frames_are_the_right_ones(self, folder: Path) -> None:
        opened = PreparedSet(folder)
        frames = {item.id: opened.frames(key) for key in opened.clip_keys for item in opened.examples_of(key)}

        def numbers(name: str) -> list[int]:
            return [read_number(frame) for frame in frames[name].frames_THWC]

        assert numbers("plain0") == [(number - 0) % 20 for number in (2, 7, 12, 17)]
        assert all(10 <= number <= 15 for number in numbers("clip1"))
        assert numbers("clip1") == numbers("clip2")
        assert numbers("odd2") == numbers("plain0")  # the folder of frames
        assert frames["clip1"].duration_seconds == pytest.approx(0.5)
        assert frames["odd1"].frames_THWC.shape == (4, 32, 32, 3)

    def test_nothing_but_the_format_lies_in_the_folder(self, folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {
            "clips", "questions", "index.parquet", "quarantine.jsonl", "manifest.json",
        }  # fmt: skip
        assert not list(folder.rglob(".*"))


def prepare_all(made: Recipe) -> dict[str, list[Path]]:
    """A folder per entry of each split."""
    splits = ("train", "validation", "test")
    return {split: [prepare(made, entry) for entry in getattr(made.data, split)] for split in splits}


def good_rows(videos: Path, count: int = 20) -> list[Example]:
    return [question(f"q{number}", videos / f"good{number:02d}.mp4") for number in range(count)]


class TestReuse:
    def test_one_folder_per_address_found_again_and_a_path_per_entry(self, videos: Path, tmp_path: Path) -> None:
        rows = good_rows(videos, 3)
        file = str(write_rows(tmp_path / "rows.json", rows))
        entries = [{"name": "listed", "file": file, "weight": weight} for weight in (1.0, 3.0)]
        entries += [{"name": "listed", "file": file, "max_samples": 2}]
        folders = prepare_all(recipe(tmp_path, rows, train=entries, test=entries[:1]))
        assert folders["train"][0] == folders["train"][1] == folders["test"][0] != folders["train"][2]
        assert folders["validation"] == []
        assert PreparedSet(folders["train"][2]).num_questions == 2
        before = (folders["train"][0] / "manifest.json").stat().st_mtime_ns
        same_data = {"decode_workers": 1, "decode_timeout_seconds": 9.0}
        assert prepared(recipe(tmp_path, rows, **same_data)) == folders["train"][0]
        assert (folders["train"][0] / "manifest.json").stat().st_mtime_ns == before
        assert len(openings(tmp_path / "openings.log")) == 3 + 2

    def test_parts_on_disk_are_not_decoded_again(self, videos: Path, tmp_path: Path) -> None:
        made = recipe(tmp_path, good_rows(videos))
        folder = prepared(made)
        whole = contents(folder)
        lost = sorted((folder / "clips").iterdir())[0]
        lost.unlink()
        (folder / "manifest.json").unlink()
        (tmp_path / "openings.log").unlink()
        prepared(made)
        assert contents(folder) == whole
        assert len(openings(tmp_path / "openings.log")) == 16
        assert read_manifest(folder)["run"]["files"] == {"decoded": 16, "reused": 4}

    def test_a_missing_video_that_came_is_told_and_used_on_request(
        self, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        late = tmp_path / "late.mp4"
        made = recipe(tmp_path, [*good_rows(videos, 2), question("late1", late)])
        folder = prepared(made)
        assert read_manifest(folder)["rows"]["quarantined"] == 1
        assert prepared(made) == folder
        assert not [record for record in caplog.records if record.name == "cluenet"]
        late.write_bytes((videos / "good07.mp4").read_bytes())
        prepared(made)
        assert "1 videos that were missing" in caplog.text
        assert str(late) in caplog.text
        (folder / "manifest.json").unlink()
        prepared(made)
        assert read_manifest(folder)["rows"] == {"in": 3, "ready": 3, "quarantined": 0}


def contents(folder: Path) -> dict[str, object]:
    """Every file by name; the manifest without what tells of the run."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads(files.pop("manifest.json"))
    manifest.pop("run")
    return {**files, "manifest.json": manifest}


SCRIPT = """
import sys, json
import ray
from cluenet.recipe import Recipe
from cluenet.data.prepare import prepare
if __name__ == "__main__":
    recipe = Recipe.from_dict(json.load(open(sys.argv[1])))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print("folder", prepare(recipe, recipe.data.train[0]), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """Starts `prepare` in a process (group) of its own; what is left is killed at the end."""
    started: list[subprocess.Popen] = []

    def go(made: Recipe) -> subprocess.Popen:
        file = tmp_path / f"recipe{len(started)}.json"
        file.write_text(json.dumps(made.to_dict()))
        command = [sys.executable, "-c", SCRIPT, str(file)]
        paths = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield go
    for process in started:
        kill(process)


def kill(process: subprocess.Popen, how: int = signal.SIGKILL) -> None:
    if process.poll() is None:
        os.killpg(process.pid, how)
    process.wait(timeout=60)


def wait_for(condition, seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


class TestInterrupted:
    """Forty files in three parts; `whole` is what an uninterrupted run leaves."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("interrupted")

    @pytest.fixture(scope="class")
    def rows(self, videos: Path) -> list[Example]:
        return [question(f"q{n}", videos / f"good{n:02d}.mp4", 0.0, 1.0) for n in range(20)] + [
            question(f"r{n}", link(videos, n)) for n in range(20)
        ]

    def recipe(self, folder: Path, rows: list, store: str) -> Recipe:
        return recipe(folder, rows, store=store, decode_workers=1, delay_seconds=0.3)

    @pytest.fixture(scope="class")
    def whole(self, folder: Path, rows: list) -> dict[str, object]:
        made = contents(prepared(self.recipe(folder, rows, "whole")))
        assert len(openings(folder / "openings.log")) == 40
        return made

    @pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
    def test_a_killed_run_goes_on_where_it_stopped(self, folder: Path, rows: list, whole, start, how: int) -> None:
        log = folder / "openings.log"
        log.unlink()
        made = self.recipe(folder, rows, f"killed{how}")
        process = start(made)
        wait_for(lambda: len(openings(log)) >= 20)
        kill(process, how)
        clips = next((folder / f"killed{how}" / "prepared").iterdir()) / "clips"
        wait_for(lambda: not any(_is_locked(file) for file in clips.glob(".*")))  # workers end after their driver
        parts = [pq.read_table(part, columns=["path"]) for part in clips.glob("part-*")]
        done = [path for part in parts for path in part["path"].to_pylist()]
        assert 16 <= len(done) < 40
        assert not (clips.parent / "manifest.json").exists()
        killed = openers(log)  # one of them may still end the group of files it was at
        prepared(made)
        assert sorted(openings(log, not_by=killed) + done) == sorted(row.video.path for row in rows)
        assert contents(clips.parent) == whole
        assert read_manifest(clips.parent)["run"]["files"] == {"decoded": 40 - len(done), "reused": len(done)}

    @pytest.mark.slow
    def test_two_at_once_end_with_one_whole_folder(self, folder: Path, rows: list, whole, start) -> None:
        log = folder / "openings.log"
        log.unlink()
        made = self.recipe(folder, rows, "both")
        process = start(made)
        wait_for(lambda: openings(log))
        made_here = prepared(made)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert f"folder {made_here}" in output
        assert contents(made_here) == whole


def link(videos: Path, number: int) -> Path:
    path = videos / f"link{number:02d}.mp4"
    if not path.exists():
        path.symlink_to(videos / f"good{number:02d}.mp4")
    return path


class TestErrors:
    def test_no_usable_question(self, videos: Path, tmp_path: Path) -> None:
        rows = [
            question("a", videos / "empty.mp4"),
            question("b", videos / "nowhere.mp4"),
            question("c", videos / "empty.mp4"),
        ]
        with pytest.raises(DataError, match=r"none of 3 questions .*empty 2, missing 1.*quarantine\.jsonl"):
            prepared(recipe(tmp_path, rows))
        (quarantine,) = tmp_path.glob("store/prepared/*/quarantine.jsonl")
        assert len(quarantine.read_text().splitlines()) == 3

    def test_no_question_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there are no questions"):
            prepared(recipe(tmp_path, []))

    def test_repeated_ids(self, videos: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="'q1'"):
            prepared(recipe(tmp_path, [*good_rows(videos, 3), question("q1", videos / "good05.mp4")]))
        assert openings(tmp_path / "openings.log") == []

    def test_more_workers_than_cpus(self, videos: Path, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="decode_workers is 99, but the cluster has 2 CPUs"):
            prepared(recipe(tmp_path, good_rows(videos, 1), decode_workers=99))

    def test_a_full_disk_in_a_worker_keeps_what_is_done(self, videos: Path, tmp_path: Path) -> None:
        made = recipe(tmp_path, good_rows(videos), store=MARK, plugins=("helpers.listed", "helpers.full_disk"))
        with pytest.raises(StorageError, match=r"clips/part-00001-\w+\.parquet: the disk is full \(.*`store="):
            prepared(made)
        (folder,) = (tmp_path / MARK / "prepared").iterdir()
        assert [path.name[:10] for path in (folder / "clips").iterdir()] in (["part-00000"], [])
        assert not (folder / "manifest.json").exists()


def test_built_in_datasets_and_clue_files(videos: Path, tmp_path: Path) -> None:
    def chat(name: str, video: str, text: str = "<video>does it move?") -> str:
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
        return json.dumps({"id": name, "messages": turns, "videos": [video], "options": ["yes", "no"]})

    chats = [
        chat("a", "good00.mp4"),
        chat("b", "good00.mp4"),
        chat("c", "garbage.mp4"),
        chat("d", "x.mp4", "<video><video>?"),
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(chats))
    labels = [{"id": "a", "clues": [{"text": "it moves"}], "chain": "so yes"}, {"id": "z", "clues": []}]
    (tmp_path / "clues.jsonl").write_text("\n".join(map(json.dumps, labels)))
    header = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
    lines = [
        "good01,20,64,64,why,0,1,CW,a,b,c,d,e",
        "good01,20,64,64,why,9,2,CW,a,b,c,d,e",
        "sound,20,64,64,how,1,1,CH,a,b,c,d,e",
    ]
    (tmp_path / "test.csv").write_text("\n".join([header, *lines]))
    made = recipe(
        tmp_path, [], clue_source={"name": "file", "path": str(tmp_path / "clues.jsonl")},
        train=[{"name": "messages", "files": str(tmp_path / "train.jsonl"), "video_root": str(videos)}],
        test=[{"name": "nextqa", "folder": str(tmp_path), "videos": str(videos), "split": "test"}],
    )  # fmt: skip
    folders = prepare_all(made)
    train, test = (read_manifest(folders[split][0]) for split in ("train", "test"))
    assert train["rows"] == {"in": 4, "ready": 2, "quarantined": 2}
    assert train["quarantined"]["reasons"] == {"placeholder_mismatch": 1, "corrupt": 1}
    assert (train["labels"]["clues"], train["labels"]["chain"], train["clips"]["distinct"]) == (1, 1, 1)
    assert train["clue_source_summary"] == {"entries": 2, "used": 1, "unused": 1}
    assert test["rows"] == {"in": 3, "ready": 1, "quarantined": 2}
    assert test["quarantined"]["reasons"] == {"answer_outside_options": 1, "no_video_stream": 1}
