"""The `nextgqa` dataset on small files in the official format."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet_components.datasets.nextgqa import NextGqaDataset

HEADER = [
    "video_id",
    "frame_count",
    "width",
    "height",
    "question",
    "answer",
    "qid",
    "type",
    "a0",
    "a1",
    "a2",
    "a3",
    "a4",
]
OPTIONS = ("tie her shoe", "greet the dog", "feel tired", "pick up toy", "dance")
FIRST = dict(zip(HEADER, ["0550001112", 840, 640, 480, "why did she bend down", "pick up toy", 4, "CW", *OPTIONS]))
SPANS = {"0550001112": {"duration": 28, "location": {"4": [[3.5, 9.0], [15.0, 18.2]], "5": [[0, 1]]}, "fps": 29.97}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    (tmp_path / "gsub_val.json").write_text(json.dumps(SPANS))
    return tmp_path


def write(home: Path, *rows: dict[str, Any], split: str = "val", header: list[str] = HEADER) -> None:
    with (home / f"{split}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def dataset(home: Path, **settings: Any) -> NextGqaDataset:
    return NextGqaDataset.Config(folder=str(home), videos=str(home / "videos"), **{"split": "val", **settings}).build()


def rows(home: Path, **settings: Any) -> list[Example | Quarantined]:
    return list(dataset(home, **settings).rows())


def test_official_row_answers_by_text_and_keeps_its_spans_from_the_model(home: Path) -> None:
    write(home, FIRST)
    (found,) = rows(home)
    assert found == Example(
        id="0550001112_4",
        dataset="nextgqa",
        video=VideoRef(str(home / "videos/0550001112.mp4")),
        question="why did she bend down?",
        options=OPTIONS,
        answer=3,
        type="CW",
        meta={"answer": 3, "spans": [[3.5, 9.0], [15.0, 18.2]]},
    )
    assert found.clues is None, "a span says when and not what: it is a clue on demand alone"


def test_spans_come_as_clues_on_demand_and_say_nothing_of_the_answer(home: Path) -> None:
    write(home, FIRST, FIRST | {"qid": 5})
    first, second = rows(home, clues=True)
    assert first.clues == tuple(
        Clue("the answer can be seen", *span, concepts={"what": "answer"}) for span in ((3.5, 9.0), (15.0, 18.2))
    )
    assert [(clue.start_seconds, clue.end_seconds) for clue in second.clues] == [(0, 1)]
    assert first.meta == rows(home)[0].meta
    write(home, FIRST | {"answer": "dance"}, FIRST | {"qid": 5})
    assert rows(home, clues=True)[0].clues == first.clues
    write(home, FIRST, split="train")
    (unlabelled,) = rows(home, split="train", clues=True)
    assert unlabelled.clues is None


def test_the_vidor_map_and_flat_files_are_found_as_nextqa_finds_them(home: Path) -> None:
    write(home, FIRST)
    (home / "map_vid_vidorID.json").write_text('{"0550001112": "0207/0550001112"}')
    video = home / "videos/0207/0550001112.mp4"
    video.parent.mkdir()
    video.touch()
    assert rows(home)[0].video == VideoRef(str(video))


def test_train_has_no_spans_and_needs_no_file_of_them(home: Path) -> None:
    (home / "gsub_val.json").unlink()
    write(home, FIRST | {"type": "DL"}, split="train")
    (found,) = rows(home, split="train")
    assert (found.type, found.meta) == ("DL", {"answer": 3})
    assert len(dataset(home, split="train").sources()) == 1
    write(home, FIRST)
    with pytest.raises(DataError, match=r"nextgqa.folder: no such file: .*gsub_val.json"):
        rows(home)


@pytest.mark.parametrize(
    ("change", "reason", "said", "meta"),
    [
        ({"answer": "3"}, "answer_outside_options", "answer '3' is none of the options ['tie her shoe'", {"spans"}),
        ({"answer": ""}, "answer_outside_options", "answer ''", {"spans"}),
        ({"a0": "pick up toy"}, "ambiguous_answer", "is options [0, 3] alike", {"spans"}),
        ({"type": "XX"}, "unknown_type", "type 'XX' is none of", {"spans", "answer"}),
        ({"question": " "}, "malformed", "question is empty", {"spans", "answer"}),
        ({"a2": ""}, "bad_options", "an option is empty", {"spans", "answer"}),
        ({"qid": 6}, "no_spans", "gsub_val.json: 0550001112.location.6 is missing", {"answer"}),
        ({"video_id": "1"}, "no_spans", "gsub_val.json: 1.location.5 is missing", {"answer"}),
    ],
)
def test_bad_rows_keep_what_is_known_of_them(
    home: Path, change: dict[str, Any], reason: str, said: str, meta: set[str]
) -> None:
    write(home, FIRST, FIRST | {"qid": 5} | change)
    good, bad = rows(home)
    assert isinstance(good, Example)
    assert isinstance(bad, Quarantined)
    assert (bad.path, bad.reason, bad.type) == (str(home / "val.csv"), reason, None if "type" in change else "CW")
    assert bad.detail.startswith("line 3: ")
    assert said in bad.detail
    assert set(bad.meta) == meta


@pytest.mark.parametrize(
    "spans", [[[9.0, 3.5]], [[-1, 2]], [[1]], [], None, [["a", 2]], [[True, 2]], [[0, float("inf")]]], ids=repr
)
def test_spans_that_cannot_be_are_named_with_file_video_and_question(home: Path, spans: Any) -> None:
    write(home, FIRST)
    labels = json.loads(json.dumps(SPANS))
    labels["0550001112"]["location"]["4"] = spans
    (home / "gsub_val.json").write_text(json.dumps(labels))
    (bad,) = rows(home)
    assert isinstance(bad, Quarantined)
    assert bad.reason == "bad_spans"
    assert "gsub_val.json: 0550001112.location.4 is " in bad.detail


def test_files_that_are_wrong_as_a_whole_are_errors(home: Path) -> None:
    write(home, FIRST, header=["video", *HEADER[1:]])  # NExT-QA's spelling
    with pytest.raises(DataError, match=r"val.csv: no column video_id.*Take datasets/nextgqa of doc-doc/NExT-GQA"):
        rows(home)
    write(home, FIRST, FIRST)
    with pytest.raises(DataError, match="line 2 and line 3 have the same video and qid: 0550001112_4"):
        rows(home)
    write(home)
    with pytest.raises(DataError, match="empty dataset"):
        rows(home)
    write(home, FIRST)
    for text, said in ((json.dumps(SPANS)[:-9], "is not valid JSON"), ("[]", "must be an object by video")):
        (home / "gsub_val.json").write_text(text)
        with pytest.raises(DataError, match=f"gsub_val.json: {said}"):
            rows(home)


def test_sources_follow_questions_and_spans(home: Path) -> None:
    write(home, FIRST)
    before = dataset(home).sources()
    (home / "gsub_val.json").write_text(json.dumps(SPANS) + "\n")
    after = dataset(home).sources()
    assert (len(before), before[0] == after[0], before[1] == after[1]) == (2, True, False)
