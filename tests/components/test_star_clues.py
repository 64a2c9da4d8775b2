"""STAR's situation graphs as clues: words, times, boxes, what is merged, and what never becomes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.records import Box, Clue, Example, Quarantined
from cluenet.testing.videos import counting_frames, write_garbage, write_video
from cluenet_components.datasets.star import StarDataset
from helpers.benchmarks.star import FPS, question, situation, write_classes

PERSON, TOWEL = (0.25, 0.25, 0.5, 0.75), (0.375, 0.25, 0.625, 0.5)
"""The boxes of `situation` as fractions of 64 x 48 pixels."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    write_classes(tmp_path / "STAR_classes")
    write_video(tmp_path / "videos/QX7ZT.mp4", counting_frames(24, height=48, width=64), fps=FPS)
    return tmp_path


def ask(home: Path, situations: Any, **settings: Any) -> Example | Quarantined:
    (home / "STAR_val.json").write_text(json.dumps([question("QX7ZT", 1) | {"situations": situations}]))
    config = StarDataset.Config(folder=str(home), videos=str(home / "videos"), split="val", **settings)
    (found,) = config.build().rows()
    return found


def clues(home: Path, situations: Any, **settings: Any) -> tuple[Clue, ...] | None:
    found = ask(home, situations, **settings)
    assert isinstance(found, Example), found
    return found.clues


def boxes(seconds: float) -> tuple[Box, ...]:
    return Box(seconds, *PERSON), Box(seconds, *TOWEL)


def test_one_frame_says_actions_first_with_names_roles_time_and_boxes(home: Path) -> None:
    taking, holding, front = clues(home, {"000009": situation()}) or ()
    assert taking == Clue(
        "take a towel/s from somewhere", 1.0, 1.0, boxes(1.0), {"who": "person", "what": "take", "whom": "towel"}
    )
    assert holding == Clue(
        "person holding towel", 1.0, 1.0, boxes(1.0), {"who": "person", "what": "holding", "whom": "towel"}
    )
    assert front.text == "sofa/couch in front of person"
    assert front.concepts == {"who": "sofa/couch", "what": "front", "whom": "person"}
    assert front.boxes == (Box(1.0, *PERSON),), "the sofa's box is null"


def test_neighbouring_frames_make_one_clue_and_a_gap_makes_two(home: Path) -> None:
    without = {**situation(), "rel_pairs": [], "rel_labels": []}
    found = clues(home, {"000013": without, "000005": situation(), "000009": situation(), "000017": situation()}) or ()
    spans = {(clue.text, clue.start_seconds, clue.end_seconds) for clue in found}
    assert spans == {
        ("take a towel/s from somewhere", 0.5, 2.0),
        ("person holding towel", 0.5, 1.0), ("person holding towel", 2.0, 2.0),
        ("sofa/couch in front of person", 0.5, 1.0), ("sofa/couch in front of person", 2.0, 2.0),
    }  # fmt: skip
    assert found[0].boxes == (*boxes(0.5), *boxes(1.0), *boxes(1.5), *boxes(2.0))
    relations = [clue.start_seconds for clue in found[1:]]
    assert relations == sorted(relations), "each kind by time"


def test_actions_stand_before_relations_that_began_earlier(home: Path) -> None:
    """A model with few slots is taught the first clues, and questions are about actions."""
    found = clues(home, {"000005": {**situation(), "actions": []}, "000009": situation()}) or ()
    assert [clue.start_seconds for clue in found] == [1.0, 0.5, 0.5]


def test_frames_outside_of_the_clip_are_never_clues(home: Path) -> None:
    """Prediction and Feasibility ask about what comes after the end."""
    after = {**situation(), "actions": ["a033"]}
    found = clues(home, {"000004": situation(), "000017": situation(), "000018": after, "000024": after}) or ()
    assert {(clue.start_seconds, clue.end_seconds) for clue in found} == {(2.0, 2.0)}
    assert "put a box somewhere" not in {clue.text for clue in found}
    assert clues(home, {"000018": after}) is None


def test_what_is_null_or_missing_is_left_out(home: Path) -> None:
    assert clues(home, {"000009": {"actions": ["a031"], "bbox": None, "bbox_labels": None, "rel_pairs": None}}) == (
        Clue("hold a box", 1.0, 1.0, (), {"who": "person", "what": "hold", "whom": "box"}),
    )
    for nothing in (None, {}, {"000009": {}}):
        assert clues(home, nothing) is None


def test_boxes_are_cut_at_the_frame_and_one_outside_of_it_shows_nothing(home: Path) -> None:
    far = situation() | {"bbox": [[-8.0, 12.0, 32.0, 60.0], [70.0, 0.0, 80.0, 9.0], [5.0, 5.0, 5.0, 9.0]]}
    found = clues(home, {"000009": far}) or ()
    assert found[0].boxes == (Box(1.0, 0.0, 0.25, 0.5, 1.0),)


def test_boxes_follow_the_picture_as_it_is_shown(home: Path) -> None:
    write_video(home / "videos/QX7ZT.mp4", counting_frames(24, height=64, width=48), fps=FPS, rotation=90)
    assert (clues(home, {"000009": situation()}) or ())[0].boxes == boxes(1.0)


def test_times_follow_the_official_rate_else_the_files_own(home: Path) -> None:
    assert (clues(home, {"000005": situation()}) or ())[0].start_seconds == 0.5
    (home / "STAR_classes/video_fps.json").write_text('{"QX7ZT.mp4": 4.0}')
    assert (clues(home, {"000005": situation()}) or ())[0].start_seconds == 1.0


def test_without_the_mapping_actions_have_no_roles(home: Path) -> None:
    (home / "STAR_classes/action_mapping.txt").unlink()
    taking = (clues(home, {"000009": situation()}) or ())[0]
    assert taking == Clue("take a towel/s from somewhere", 1.0, 1.0, (Box(1.0, *PERSON),))


def test_a_video_that_cannot_be_read_has_no_clues_and_is_told_when_it_is_opened(home: Path) -> None:
    write_garbage(home / "videos/QX7ZT.mp4")
    assert clues(home, {"000009": situation()}) is None
    (home / "videos/QX7ZT.mp4").unlink()
    assert clues(home, {"000009": situation()}) is None


def test_clues_can_be_switched_off_and_need_no_class_files_then(home: Path) -> None:
    for file in (home / "STAR_classes").iterdir():
        file.unlink()
    assert clues(home, {"000009": situation()}, clues=False) is None
    with pytest.raises(
        DataError, match=r"star.classes \(not needed with star.clues: false\): no such file: .*object_cl"
    ):
        ask(home, {"000009": situation()})


@pytest.mark.parametrize("place", ["STAR_classes", "classes", "annotations/STAR_classes", "."])
def test_class_files_are_found_where_the_repository_and_its_archive_put_them(home: Path, place: str) -> None:
    (home / place).mkdir(parents=True, exist_ok=True)
    for file in list((home / "STAR_classes").iterdir()):
        file.rename(home / place / file.name)
    assert len(clues(home, {"000009": situation()}) or ()) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"actions": ["a999"]}, "situations.000009.actions: 'a999' is no known class"),
        ({"rel_pairs": [["o000", "o999"]], "rel_labels": ["r009"]}, "situations.000009.rel_pairs: 'o999' is no known"),
        ({"rel_labels": ["r009", "r999"]}, "situations.000009.rel_labels: 'r999' is no known class"),
        ({"rel_labels": ["r009"]}, "situations.000009: 2 rel_pairs but 1 rel_labels"),
        ({"bbox_labels": ["o000"]}, "situations.000009: 3 bbox but 1 bbox_labels"),
        ({"bbox": [[1, 2, 3], None, None]}, "situations.000009.bbox.0: List should have at least 4 items"),
        ({"bbox": [["1", 2, 3, 4], None, None]}, "situations.000009.bbox.0.0: Input should be a valid number"),
        ({"actions": "a027"}, "situations.000009.actions: Input should be a valid list"),
    ],
)
def test_graphs_that_contradict_themselves_are_named_by_frame_and_field(
    home: Path, change: dict[str, Any], said: str
) -> None:
    bad = ask(home, {"000009": situation() | change})
    assert isinstance(bad, Quarantined)
    assert (bad.id, bad.reason, bad.type) == ("Sequence_T2_QX7ZT1", "bad_clues", "Sequence")
    assert bad.detail.startswith("item 1: ")
    assert said in bad.detail


@pytest.mark.parametrize("situations", [[situation()], "x", {"frame9": situation()}], ids=["list", "text", "key"])
def test_graphs_that_are_none_are_named(home: Path, situations: Any) -> None:
    bad = ask(home, situations)
    assert isinstance(bad, Quarantined)
    assert bad.reason == "bad_clues"
    assert "situations" in bad.detail


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("object_classes.txt", "o000 person\no015", r"object_classes.txt: line 2 is 'o015', must be an id and a name"),
        ("action_mapping.txt", "a027 v010", r"action_mapping.txt: a027 is 'v010', must be the ids of a verb and an"),
        ("action_mapping.txt", "a027 v999 o027", r"action_mapping.txt: a027 is 'v999 o027'"),
    ],
)
def test_class_files_of_another_format_are_errors(home: Path, file: str, text: str, said: str) -> None:
    (home / "STAR_classes" / file).write_text(text)
    with pytest.raises(DataError, match=said):
        ask(home, {"000009": situation()})
