"""The `nextqa` dataset on small files in the official format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.records import Example, Quarantined, VideoRef
from cluenet_components.datasets._nextqa_rows import TYPES
from cluenet_components.datasets.nextqa import NextQaDataset

HEADER = ["video", "frame_count", "width", "height", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"]
FIRST = dict(zip(HEADER, [
    "0550001112", 840, 640, 480, "why did the girl bend down near the sofa", 3, 4, "CW",
    "tie her shoe", "greet the dog", "feel tired", "pick up toy", "dance",
]))  # fmt: skip
OPTIONS = ("tie her shoe", "greet the dog", "feel tired", "pick up toy", "dance")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    return tmp_path


def write(home: Path, *rows: dict[str, Any], split: str = "train", header: list[str] = HEADER) -> None:
    with (home / f"{split}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_map(home: Path) -> None:
    (home / "map_vid_vidorID.json").write_text(json.dumps({"0550001112": "0207/0550001112"}))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def dataset(home: Path, **settings: Any) -> NextQaDataset:
    return NextQaDataset.Config(folder=str(home), videos=str(home / "videos"), **settings).build()


def rows(home: Path, **settings: Any) -> list[Example | Quarantined]:
    return list(dataset(home, **settings).rows())


def test_official_row(home: Path) -> None:
    write(home, FIRST)
    assert rows(home) == [
        Example(
            id="0550001112_4",
            dataset="nextqa",
            video=VideoRef(str(home / "videos/0550001112.mp4")),
            question="why did the girl bend down near the sofa?",
            options=OPTIONS,
            answer=3,
            type="CW",
            meta={"answer": 3},
        )
    ]


def test_question_mark_is_not_doubled_and_cells_are_stripped(home: Path) -> None:
    write(home, FIRST | {"question": " why? ", "a0": " tie her shoe "})
    (row,) = rows(home)
    assert (row.question, row.options) == ("why?", OPTIONS)


def test_every_type_is_kept_and_qids_count_within_a_video(home: Path) -> None:
    write(home, *(FIRST | {"qid": number, "type": kind} for number, kind in enumerate(TYPES)), FIRST | {"video": "9"})
    found = rows(home)
    assert [row.type for row in found] == [*TYPES, "CW"]
    assert [found[4].id, found[-1].id] == ["0550001112_4", "9_4"]


@pytest.mark.parametrize(
    ("split", "file"), [("train", "train"), ("val", "val"), ("validation", "val"), ("test", "test")]
)
def test_splits_read_their_file(home: Path, split: str, file: str) -> None:
    write(home, FIRST | {"video": file}, split=file)
    assert [row.id for row in rows(home, split=split)] == [f"{file}_4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
@pytest.mark.parametrize("place", ["0207/0550001112", "0550001112"])
def test_vidor_and_flat_layouts_are_found(home: Path, place: str, suffix: str) -> None:
    write(home, FIRST)
    write_map(home)
    video = touch(home / "videos" / f"{place}{suffix}")
    assert rows(home)[0].video == VideoRef(str(video))


def test_flat_layout_needs_no_map_and_the_map_may_lie_elsewhere(home: Path) -> None:
    write(home, FIRST)
    video = touch(home / "videos/0207/0550001112.mp4")
    assert rows(home)[0].video.path == str(home / "videos/0550001112.mp4")
    (home / "my_map.json").write_text('{"0550001112": "0207/0550001112"}')
    assert rows(home, map_file=str(home / "my_map.json"))[0].video.path == str(video)
    (home / "my_map.json").rename(home / "videos/map_vid_vidorID.json")
    assert rows(home)[0].video.path == str(video)


def test_a_video_that_is_nowhere_keeps_the_path_its_layout_would_give(home: Path) -> None:
    write(home, FIRST)
    write_map(home)
    (home / "videos/0207").mkdir()
    assert rows(home)[0].video.path == str(home / "videos/0207/0550001112.mp4")
    (home / "videos/0207").rmdir()
    assert rows(home)[0].video.path == str(home / "videos/0550001112.mp4")


@pytest.mark.parametrize("place", ["0207/0550001112", "0550001112"])
def test_frame_folders_need_a_rate(home: Path, place: str) -> None:
    write(home, FIRST)
    write_map(home)
    folder = touch(home / "videos" / place / "000001.jpg").parent
    assert rows(home, fps=30)[0].video == VideoRef(str(folder), fps=30.0)
    (bad,) = rows(home)
    assert (bad.id, bad.reason) == ("0550001112_4", "no_fps")
    assert "set nextqa.fps" in bad.detail


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"answer": 5}, "answer_outside_options", "answer '5' is none of 0, 1, 2, 3, 4"),
        ({"answer": -1}, "answer_outside_options", "'-1'"),
        ({"answer": "dance"}, "answer_outside_options", "'dance'"),
        ({"answer": ""}, "answer_outside_options", "''"),
        ({"type": "XX"}, "unknown_type", "type 'XX' is none of CW, CH"),
        ({"question": " "}, "malformed", "question is empty"),
        ({"a2": ""}, "bad_options", "an option is empty"),
    ],
)
def test_bad_rows_are_quarantined_beside_good_ones(home: Path, change: dict[str, Any], reason: str, said: str) -> None:
    write(home, FIRST, FIRST | {"qid": 5} | change, FIRST | {"qid": 6})
    before, bad, after = rows(home)
    assert (before.id, after.id) == ("0550001112_4", "0550001112_6")
    assert isinstance(bad, Quarantined)
    assert (bad.id, bad.dataset, bad.path, bad.reason) == ("0550001112_5", "nextqa", str(home / "train.csv"), reason)
    assert bad.detail.startswith("line 3: ")
    assert said in bad.detail
    assert bad.type == (None if "type" in change else "CW"), "it counts as wrong under its type"
    assert bad.meta == ({} if "answer" in change else {"answer": 3})


def test_rows_of_another_length_or_without_a_key_are_quarantined_under_their_line(home: Path) -> None:
    write(home, FIRST, FIRST | {"video": ""}, FIRST | {"qid": ""})
    with (home / "train.csv").open("a") as file:
        file.write("1,2,3\n7,840,640,480,q,0,1,CW,a,b,c,d,e,f\n")
    bad = rows(home)[1:]
    assert [row.id for row in bad] == ["train-3", "train-4", "train-5", "7_1"]
    assert [row.reason for row in bad] == ["malformed"] * 4
    assert [row.detail for row in bad] == [
        "line 3: video is empty",
        "line 4: qid is empty",
        "line 5: has fewer cells than the header",
        "line 6: has more cells than the header",
    ]


def test_missing_columns_are_listed_with_those_found(home: Path) -> None:
    write(home, FIRST, header=["video_id", *HEADER[1:-1]])  # NExT-GQA's spelling, and one option short
    with pytest.raises(
        DataError, match=r"train.csv: no column video, a4. Wanted: video, .*, a4. Found: video_id, frame"
    ):
        rows(home)
    (home / "train.csv").write_text("")
    with pytest.raises(DataError, match="Found: nothing"):
        rows(home)


def test_duplicate_keys_name_both_lines(home: Path) -> None:
    write(home, FIRST, FIRST | {"qid": 5}, FIRST)
    with pytest.raises(DataError, match="line 2 and line 4 have the same video and qid: 0550001112_4"):
        rows(home)


def test_empty_files_and_wrong_maps_are_errors(home: Path) -> None:
    write(home)
    with pytest.raises(DataError, match="empty dataset"):
        rows(home)
    write(home, FIRST)
    for text, said in [
        ("{", "is not valid JSON"),
        ("[]", "must be an object like"),
        ('{"1": 2}', "must be an object like"),
    ]:
        (home / "map_vid_vidorID.json").write_text(text)
        with pytest.raises(DataError, match=f"map_vid_vidorID.json: {said}"):
            rows(home)


def test_missing_files_and_folders_suggest_what_is_there(home: Path) -> None:
    write(home, FIRST)
    with pytest.raises(DataError, match=r"nextqa.folder: no such file: .*val.csv. .*holds: train.csv, videos"):
        rows(home, split="val")
    with pytest.raises(DataError, match=r"nextqa.map_file: no such file"):
        rows(home, map_file=str(home / "map.json"))
    wrong = NextQaDataset.Config(folder=str(home), videos=str(home / "vidoes")).build()
    with pytest.raises(DataError, match=r"nextqa.videos: no such folder: .*vidoes. Did you mean 'videos'\?"):
        list(wrong.rows())
    wrong = NextQaDataset.Config(folder=str(home / "nothing"), videos=str(home / "videos")).build()
    with pytest.raises(DataError, match=r"nextqa.folder: no such folder"):
        list(wrong.rows())


def test_sources_follow_annotations_and_map(home: Path) -> None:
    write(home, FIRST)
    alone = dataset(home).sources()
    write_map(home)
    mapped = dataset(home).sources()
    assert (len(alone), mapped[0], len(mapped)) == (1, alone[0], 2)
    write(home, FIRST | {"answer": 1})
    changed = dataset(home).sources()
    assert (changed[0] != mapped[0], changed[1]) == (True, mapped[1])


def as_sevila(row: dict[str, Any]) -> dict[str, Any]:
    """As SeViLA's notebook rewrites a row of the official file."""
    options = {f"a{i}": f"{row[f'a{i}']}." for i in range(5)}
    place = f"0207/{row['video']}"
    qid = f"{row['type']}_{row['video']}_{row['qid']}"
    question = f"{row['question']}?"
    return {"video": place, "num_option": 5, "qid": qid, **options, "answer": row["answer"], "question": question}


def write_sevila(home: Path, *rows: dict[str, Any], name: str = "train.json") -> None:
    (home / name).write_text(json.dumps(rows))


def test_sevilas_json_gives_the_same_examples_as_the_official_csv(home: Path) -> None:
    questions = [FIRST, FIRST | {"qid": 5, "type": "TP", "answer": 0}]
    touch(home / "videos/0207/0550001112.mp4")
    write_map(home)
    write(home, *questions)
    official = rows(home)
    (home / "train.csv").unlink()
    (home / "map_vid_vidorID.json").unlink()
    write_sevila(home, *map(as_sevila, questions))
    assert rows(home) == official
    (home / "train.json").rename(home / "train.csv")
    assert rows(home) == official, "the format is told by content, not by name"


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"qid": "0550001112_4"}, "malformed", "qid '0550001112_4' is not <type>_<video>_<number> of the video"),
        ({"video": "0207/0550001113"}, "malformed", "of the video '0207/0550001113'"),
        ({"answer": True}, "answer_outside_options", "answer 'True'"),
        ({"answer": None}, "answer_outside_options", "answer ''"),
        ({"qid": "XX_0550001112_4"}, "unknown_type", "type 'XX' is none of"),
        ({"a3": "."}, "bad_options", "an option is empty"),
    ],
)
def test_bad_rows_of_sevilas_json(home: Path, change: dict[str, Any], reason: str, said: str) -> None:
    write_sevila(home, as_sevila(FIRST | {"qid": 7}), as_sevila(FIRST) | change)
    _, bad = rows(home)
    assert isinstance(bad, Quarantined)
    assert (bad.path, bad.reason) == (str(home / "train.json"), reason)
    assert bad.detail.startswith("item 2: ")
    assert said in bad.detail


def test_two_files_of_one_split_or_a_truncated_one_are_errors(home: Path) -> None:
    write(home, FIRST)
    write_sevila(home, as_sevila(FIRST))
    with pytest.raises(DataError, match=r"train.csv and train.json, which may differ. Keep one of them"):
        rows(home)
    (home / "train.csv").unlink()
    (home / "train.json").write_text((home / "train.json").read_text()[:-20])
    with pytest.raises(DataError, match=r"train.json: starts as a JSON list but is not valid JSON"):
        rows(home)
