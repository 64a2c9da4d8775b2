"""The `mvbench` dataset on a miniature in the official format: rows, layouts of videos, parts of them, archives."""

from __future__ import annotations

import json
import logging
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluenet.decoding import FramePolicy, decode_clips
from cluenet.errors import DataError, MediaError
from cluenet.plugins import load_components
from cluenet.records import Example, Quarantined, VideoRef
from cluenet.testing.videos import counting_frames, read_number, write_frame_folder
from cluenet_components.datasets._mvbench_tasks import BOUNDED, TASKS, file_of
from cluenet_components.datasets._mvbench_videos import _frames_ref
from cluenet_components.datasets.mvbench import MvBenchDataset
from helpers.benchmarks.mvbench import FILES, make_mvbench, mvbench_row

load_components()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_mvbench(tmp_path / "MVBench")


def dataset(home: Path, **settings: Any) -> MvBenchDataset:
    return MvBenchDataset.Config(folder=str(home), extract_to=str(home.parent / "cache"), **settings).build()


def rows(home: Path, *tasks: str, **settings: Any) -> list[Any]:
    return list(dataset(home, **({"tasks": tasks} if tasks else {}), **settings).rows())


def write(home: Path, name: str, *changed: dict[str, Any]) -> None:
    """The file with one row per change to its first row; None leaves a field out."""
    made = [mvbench_row(name, 0) | change for change in changed]
    kept = [{field: value for field, value in row.items() if value is not None} for row in made]
    (home / "json" / f"{name}.json").write_text(json.dumps(kept))


def move(home: Path, old: str, new: str) -> None:
    (home / "video" / new).parent.mkdir(parents=True, exist_ok=True)
    (home / "video" / old).rename(home / "video" / new)


# ------------------------------------------------------------------------------------------------------- questions


def test_an_official_row(home: Path) -> None:
    assert rows(home, "Action Sequence")[1] == Example(
        id="action_sequence-0001", dataset="mvbench",
        video=VideoRef(str(home / "video/star/Charades_v1_480/QX1ZT.mp4"), 0.75, 1.75),
        question="What happened in action_sequence 1?", options=("Took the cup.", "Opened the door.", "Sat down."), answer=1,
        type="Action Sequence", meta={"gt": "(B) Opened the door."},
    )  # fmt: skip


def test_optional_fields_of_some_files_change_nothing(home: Path) -> None:
    write(home, "action_sequence", {})
    (plain,) = rows(home, "Action Sequence")
    more = {"accurate_start": 0.7, "accurate_end": 1.1, "fps": 0, "question_id": "Interaction_T1_13"}
    write(home, "action_sequence", more)
    assert rows(home, "Action Sequence") == [plain]


def test_all_twenty_tasks_are_asked_in_the_official_order_and_only_ntu_is_missing(home: Path) -> None:
    found = rows(home)
    assert [row.type for row in found[::2]] == list(TASKS)
    assert [file_of(task) for task in TASKS] == [f"{name}.json" for name in FILES]
    assert {row.type for row in found if not Path(row.video.path).exists()} == {"Fine-grained Pose"}
    assert {row.type for row in found if row.video.end_seconds is not None} == BOUNDED
    assert dataset(home).official_counts["test"]["questions"] == 4000


def test_chosen_tasks_need_no_other_file(home: Path) -> None:
    (home / "json/action_count.json").unlink()
    assert {row.type for row in rows(home, "Moving Count", "Object Shuffle")} == {"Object Shuffle", "Moving Count"}
    with pytest.raises(DataError, match=r"mvbench.folder: no such file: .*action_count.json"):
        rows(home)


def test_json_files_may_lie_in_the_folder_itself_and_videos_elsewhere(home: Path) -> None:
    (home / "video").rename(home.parent / "films")
    found = rows(home / "json", "State Change", videos=str(home.parent / "films"))
    assert found[0].video.path == str(home.parent / "films/perception/videos/clip_0.mp4")
    with pytest.raises(DataError, match=r"mvbench.videos: no such folder: .*video"):
        rows(home, "State Change")


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"answer": "Took the cup"}, "answer_outside_options", "answer 'Took the cup' is none of ['Took the cup.'"),
        ({"answer": None}, "malformed", "answer is None, must be text"),
        ({"candidates": ["one"], "answer": "one"}, "bad_options", "candidates is ['one'], must be a list of two"),
        ({"candidates": ["a", " "], "answer": "a"}, "bad_options", "candidates is ['a', ' ']"),
        ({"candidates": ["a", "b", "a"], "answer": "a"}, "bad_options", "answer 'a' stands twice"),
        ({"candidates": None}, "bad_options", "candidates is None"),
        ({"question": " "}, "malformed", "question is ' '"),
        ({"video": None}, "malformed", "video is None"),
        ({"video": "../QX0ZT.mp4"}, "malformed", "video is '../QX0ZT.mp4', must be a path below"),
        ({"start": None}, "malformed", "start is missing"),
        ({"end": "9"}, "malformed", "end is '9', must be a number"),
        ({"start": 3, "end": 2.5}, "bad_bounds", "end 2.5 is not after start 3"),
    ],
)
def test_bad_rows_are_quarantined_beside_good_ones(home: Path, change: dict[str, Any], reason: str, said: str) -> None:
    write(home, "action_sequence", {"question": "x"}, change, {"question": "y"})
    before, bad, after = rows(home, "Action Sequence")
    assert (before.id, after.id) == ("action_sequence-0000", "action_sequence-0002")
    file = str(home / "json/action_sequence.json")
    assert isinstance(bad, Quarantined)
    assert (bad.id, bad.dataset, bad.path, bad.reason, bad.type) == (
        "action_sequence-0001", "mvbench", file, reason, "Action Sequence",
    )  # fmt: skip
    assert bad.detail.startswith("item 2: ")
    assert said in bad.detail


def test_a_broken_file_is_an_error_and_a_row_that_is_no_object_is_quarantined(home: Path) -> None:
    file = home / "json/moving_count.json"
    text = file.read_text()
    file.write_text(text[:-5])
    with pytest.raises(DataError, match=r"moving_count.json: starts as a JSON list but is not valid JSON"):
        rows(home, "Moving Count")
    file.write_text(f"[7, {text[1:]}")
    bad, *good = rows(home, "Moving Count")
    assert (bad.id, bad.reason, bad.type, len(good)) == ("moving_count-0000", "malformed", "Moving Count", 2)


def test_questions_that_are_asked_twice_are_kept_marked_and_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(home, "action_sequence", {}, {"end": 1.25}, {}, {"candidates": ["Took the cup.", "Sat down."]})
    with caplog.at_level(logging.WARNING, "cluenet"):
        found = rows(home, "Action Sequence")
    assert [row.meta.get("repeats") for row in found] == [None, None, "action_sequence-0000", None]
    assert "action_sequence.json: asked a second time, and kept: 1 questions" in caplog.text


def test_sources_follow_questions_and_layouts(home: Path) -> None:
    before = dataset(home, tasks=["Action Antonym"]).sources()
    assert before[1:] == ["ssv2_video"]
    move(home, "ssv2_video", "ssv2_video_mp4")
    moved = dataset(home, tasks=["Action Antonym"]).sources()
    assert moved == [before[0], "ssv2_video_mp4"]
    write(home, "action_antonym", {"answer": "Opened the door."})
    assert dataset(home, tasks=["Action Antonym"]).sources()[0] != before[0]


def test_originals_are_named(home: Path) -> None:
    named = {row.type: MvBenchDataset.source_id(row.video.path) for row in rows(home)[::2]}
    charades = {"Action Sequence", "Action Prediction", "Object Interaction", "Action Localization"}
    assert {task for task, name in named.items() if name == "charades:QX0ZT"} == charades
    assert sum(name == "clevrer:10000" for name in named.values()) == 5
    assert sum(name is None for name in named.values()) == 11


# --------------------------------------------------------------------------------------------------------- layouts


def test_videos_that_are_cut_already_are_not_cut_again(home: Path) -> None:
    folder = home / "video/star/Charades_v1_480"
    (folder / "QX0ZT.mp4").rename(folder / "QX0ZT_0.5_1.5.mp4")
    move(home, "star/Charades_v1_480", "star/Charades_segment")
    first, second = rows(home, "Action Sequence")
    segments = home / "video/star/Charades_segment"
    assert (first.video, second.video) == (
        VideoRef(str(segments / "QX0ZT_0.5_1.5.mp4")), VideoRef(str(segments / "QX1ZT.mp4"))
    )  # fmt: skip


def test_a_release_that_names_cut_videos_finds_whole_ones_and_their_bounds(home: Path) -> None:
    write(home, "action_localization", {"video": "QX0ZT_0.50_1.5.mp4"}, {"video": "QX0ZT_0.5_1.25.mp4"})
    whole, other = rows(home, "Action Localization")
    assert whole.video == VideoRef(str(home / "video/sta/sta_video/QX0ZT.mp4"), 0.5, 1.5)
    assert other.video.path.endswith("QX0ZT_0.5_1.25.mp4"), "other times than the row's belong to the name"
    move(home, "sta/sta_video", "sta/sta_video_segment")
    segments = home / "video/sta/sta_video_segment"
    (segments / "QX0ZT.mp4").rename(segments / "QX0ZT_0.50_1.5.mp4")
    assert rows(home, "Action Localization")[0].video == VideoRef(str(segments / "QX0ZT_0.50_1.5.mp4"))


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("Action Antonym", "ssv2_video/clip_0.webm", "ssv2_video_mp4/clip_0.mp4"),
        ("Fine-grained Pose", "nturgbd/clip_0.avi", "nturgbd_convert/clip_0.mp4"),
        ("Object Existence", "clevrer/video_validation/video_10000.mp4", "data0613/clevrer/video_validation/video_10000.mp4"),
        ("Episodic Reasoning", "tvqa/frames_fps3_hq/clip_0", "tvqa/video_fps3_hq_segment/clip_0.mp4"),
    ],
)  # fmt: skip
def test_common_copies_of_the_set_are_found(tmp_path: Path, task: str, old: str, new: str) -> None:
    home = make_mvbench(tmp_path / "MVBench", ntu=True)
    if old.startswith("tvqa"):
        (home / "video" / old).rename(home.parent / "frames")
        (home / "video" / old).touch()
    move(home, old, new)
    assert rows(home, task)[0].video == VideoRef(str(home / "video" / new))


def test_a_video_that_is_nowhere_keeps_the_path_of_the_layout_on_disk(home: Path) -> None:
    place = home / "video/ssv2_video"
    (place / "clip_0.webm").unlink()
    assert rows(home, "Action Antonym")[0].video.path == str(place / "clip_0.webm")
    move(home, "ssv2_video", "ssv2_video_mp4")
    assert rows(home, "Action Antonym")[0].video.path == str(home / "video/ssv2_video_mp4/clip_0.webm")


# ---------------------------------------------------------------------------------------------------------- frames

POLICY = FramePolicy({"name": "pyav"}, None, {"name": "uniform", "frames": 16}, {"height": 32, "width": 32}, "lossless")


def official_indices(start: float, end: float, fps: float, max_frame: int, first: int, count: int) -> list[int]:
    """`get_index` of the notebook."""
    low, high = max(first, round(start * fps)), min(round(end * fps), max_frame)
    size = float(high - low) / count
    return [int(low + size / 2 + np.round(size * index)) for index in range(count)]


def shown(folder: Path, video: VideoRef, frames: int, sampler: str = "uniform") -> list[int]:
    """Official numbers of the frames that a clip shows; the frame of number n carries n."""
    policy = FramePolicy(**{**POLICY.to_dict(), "sampler": {"name": sampler, "frames": frames}})
    (clip,) = decode_clips(str(folder), video.fps, [(video.start_seconds, video.end_seconds)], policy)
    assert not isinstance(clip, MediaError)
    return [read_number(frame_HWC) for frame_HWC in clip.frames_THWC]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, number n at 00000n.png; PNG, to read numbers exactly."""
    return write_frame_folder(tmp_path_factory.mktemp("frames") / "clip", counting_frames(41, height=32, width=32)[1:])


def test_a_clip_of_frames_shows_those_from_the_official_first_to_the_official_last(frames: Path) -> None:
    rng = random.Random(0)
    for _ in range(25):
        start = rng.uniform(0, 12)
        end = start + rng.uniform(0.01, 6)
        first, last = max(1, round(start * 3)), min(max(1, round(end * 3)), 40)
        wanted = list(range(first, last + 1))
        assert shown(frames, _frames_ref(frames, 3, start, end), len(wanted)) == wanted


def test_the_sampler_of_the_notebook_shows_its_very_frames(frames: Path) -> None:
    rng = random.Random(0)
    for _ in range(25):
        start, count = rng.uniform(0, 12), rng.choice((1, 4, 16))
        end = start + rng.uniform(0.5, 13)
        ours = shown(frames, _frames_ref(frames, 3, start, end), count, "videochat2")
        assert ours == official_indices(start, end, 3, 40, 1, count)
    whole = shown(frames, VideoRef(str(frames), fps=3), 16, "videochat2")
    assert whole == official_indices(-100_000, 100_000, 3, 40, 1, 16)


def test_evenly_spaced_frames_are_within_two_of_the_official_ones(frames: Path) -> None:
    for start, end in ((0.0, 13.0), (0.4, 9.1), (3.34, 12.9)):
        ours = shown(frames, _frames_ref(frames, 3, start, end), 16)
        official = official_indices(start, end, 3, 40, 1, 16)
        assert max(abs(a - b) for a, b in zip(ours, official)) <= 2


@pytest.mark.parametrize("first", [0, 1, 4])
def test_numbers_count_from_what_is_there(tmp_path: Path, first: int) -> None:
    content = counting_frames(30, height=32, width=32)[first:]
    folder = write_frame_folder(tmp_path / "clip", content, pattern="%05d.png", first=first)
    assert shown(folder, _frames_ref(folder, 3, 2.0, 4.0), 7) == [6, 7, 8, 9, 10, 11, 12]
    assert shown(folder, _frames_ref(folder, 3, 0.0, 0.2), 1) == [max(1, first)]


# -------------------------------------------------------------------------------------------------------- archives


def test_videos_in_archives_are_extracted_once_and_only_those_asked_for(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zipped = make_mvbench(tmp_path / "zipped", zipped=True)
    found, plain = rows(zipped, "Moving Count", "Episodic Reasoning"), rows(home, "Moving Count", "Episodic Reasoning")
    for row, same in zip(found, plain, strict=True):
        path, place = Path(row.video.path), Path(same.video.path).relative_to(home / "video")
        assert path.is_relative_to(tmp_path / "cache")
        assert path.parts[-len(place.parts) :] == place.parts
        assert (row.video.start_seconds, row.video.fps) == (same.video.start_seconds, same.video.fps)
        assert (
            path.read_bytes() == Path(same.video.path).read_bytes()
            if path.is_file()
            else len(list(path.iterdir())) == 9
        )
    assert "Extracting 4 files" in capsys.readouterr().err
    assert {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()} == {"clevrer", "tvqa"}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    assert rows(zipped, "Moving Count", "Episodic Reasoning") == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == stamps
    assert "Extracting" not in capsys.readouterr().err


def test_a_damaged_video_in_an_archive_is_a_bad_row_and_leaves_nothing(tmp_path: Path) -> None:
    zipped = make_mvbench(tmp_path / "zipped", zipped=True)
    archive = zipped / "video/vlnqa.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr("vlnqa/clip_0.mp4", b"A" * 100)
        file.writestr("vlnqa/clip_1.mp4", b"B" * 100)
    archive.write_bytes(archive.read_bytes().replace(b"A" * 100, b"A" * 99 + b"C"))
    bad, good = rows(zipped, "Egocentric Navigation")
    assert (bad.reason, bad.type) == ("corrupt_archive", "Egocentric Navigation")
    assert "item 1: vlnqa/clip_0.mp4 in" in bad.detail
    assert "Bad CRC-32" in bad.detail
    assert Path(good.video.path).read_bytes() == b"B" * 100
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["clip_1.mp4"]


def test_an_archive_that_cannot_be_opened_is_an_error_with_the_next_step(home: Path) -> None:
    (home / "video/broken.zip").write_bytes(b"PK")
    assert rows(home, "Moving Count"), "no archive is opened while all videos are there"
    with pytest.raises(DataError, match=r"broken.zip: not a whole .zip archive: .*zip -s 0 broken.zip --out whole.zip"):
        rows(home, "Fine-grained Pose")


def test_what_is_only_described_needs_no_videos_and_extracts_nothing(tmp_path: Path, home: Path) -> None:
    zipped = make_mvbench(tmp_path / "zipped", zipped=True)
    described = list(dataset(zipped).described())
    assert [(row.id, row.question) for row in described] == [(row.id, row.question) for row in rows(home)]
    assert not (tmp_path / "cache").exists()
    shutil.rmtree(zipped / "video")
    assert len(list(dataset(zipped).described())) == 40


def test_another_archive_of_the_same_name_is_extracted_anew(tmp_path: Path) -> None:
    zipped = make_mvbench(tmp_path / "zipped", zipped=True)
    before = rows(zipped, "Egocentric Navigation")[0].video.path
    with zipfile.ZipFile(zipped / "video/vlnqa.zip", "w") as file:
        file.writestr("data/vlnqa/clip_0.mp4", b"new")
    after = rows(zipped, "Egocentric Navigation")[0].video.path
    assert before != after
    assert Path(after).read_bytes() == b"new"


def test_the_segment_rule_is_python_s_rounding() -> None:
    """Halves go to the even number, in the notebook and here."""
    assert _frames_ref(Path("nowhere"), 3, 1.5, 2.5).start_seconds == (4 - 1) / 3
