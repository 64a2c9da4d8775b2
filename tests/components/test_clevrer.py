"""The `clevrer` dataset on small files in the official format."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError, MissingDataError
from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet_components.datasets import _originals
from cluenet_components.datasets._clevrer_rows import ANSWERS
from cluenet_components.datasets.clevrer import ClevrerDataset
from helpers.benchmarks.clevrer import annotation, make_clevrer, place, scene

Scenes = list[dict[str, Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clevrer(tmp_path_factory.mktemp("clevrer"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Scenes], Path]:
    """Writes train.json without videos and annotations."""

    def write(scenes: Scenes) -> Path:
        (tmp_path / "train.json").write_text(json.dumps(scenes))
        return tmp_path

    return write


def dataset(folder: Path, split: str = "train", **settings: Any) -> ClevrerDataset:
    return ClevrerDataset.Config(folder=str(folder), split=split, **settings).build()


def rows(folder: Path, split: str = "train", **settings: Any) -> list[Example | Quarantined]:
    return list(dataset(folder, split, **settings).rows())


def examples(folder: Path, split: str = "train", **settings: Any) -> dict[str, Example]:
    found = rows(folder, split, **settings)
    assert all(isinstance(row, Example) for row in found)
    return {row.id: row for row in found if isinstance(row, Example)}


def bad(rows: list[Example | Quarantined]) -> dict[str, tuple[str, str]]:
    return {row.id: (row.reason, row.detail) for row in rows if isinstance(row, Quarantined)}


# ------------------------------------------------------------------------------------------------------------ good rows


def test_a_descriptive_question_chooses_among_the_answers_of_its_subtype(home: Path) -> None:
    found = examples(home)["1_2"]
    assert found == Example(
        id="1_2",
        dataset="clevrer",
        video=VideoRef(str(home / "video_train/video_00000-01000/video_00001.mp4")),
        question="What color is the object to exit the scene?",
        options=("blue", "brown", "cyan", "gray", "green", "purple", "red", "yellow"),
        answer=3,
        type="descriptive",
        clues=found.clues,
        meta={"scene_index": 1, "question_id": 2},
    )


def test_the_answers_of_all_subtypes_are_the_21_of_the_released_files() -> None:
    answers = [answer for options in ANSWERS.values() for answer in options]
    assert len(answers) == len(set(answers)) == 21


def test_every_option_of_the_other_types_is_a_question_of_its_own(home: Path) -> None:
    found = {key: row for key, row in examples(home).items() if key.startswith("0_5")}
    assert list(found) == ["0_5_0", "0_5_1", "0_5_2", "0_5_3"]
    assert [row.answer_text for row in found.values()] == ["correct", "correct", "wrong", "wrong"]
    assert {row.options for row in found.values()} == {("correct", "wrong")}
    assert found["0_5_1"].question == (
        "Which of the following is responsible for the collision between the cube and the sphere? "
        "Proposed answer: the cube's entering the scene"
    )
    assert found["0_5_1"].meta == {"scene_index": 0, "question_id": 5, "choices": 4, "choice_id": 1}


def test_all_questions_of_a_scene_share_its_whole_video(home: Path) -> None:
    found = examples(home)
    assert Counter(row.type for row in found.values()) == {
        "descriptive": 10, "explanatory": 8, "predictive": 4, "counterfactual": 6,
    }  # fmt: skip
    videos = {row.video for row in found.values()}
    assert len(videos) == 2
    assert all((video.start_seconds, video.end_seconds) == (0.0, None) for video in videos)
    assert all(Path(video.path).is_file() for video in videos)


def test_splits_read_their_files_and_ids_never_meet(home: Path) -> None:
    ids = {split: set(examples(home, split)) for split in ("train", "validation", "test")}
    assert set(examples(home, "val")) == ids["validation"]
    assert min(ids["validation"]).startswith("10000_")
    assert sum(map(len, ids.values())) == len(set.union(*ids.values())) == 3 * 28


def test_the_test_split_has_no_answers_no_clues_and_the_same_options(home: Path) -> None:
    hidden, known = examples(home, "test"), examples(home, "validation")
    assert all(row.answer is None and row.clues is None for row in hidden.values())
    assert [row.options for row in hidden.values()] == [row.options for row in known.values()], (
        "told by the words alone"
    )


@pytest.mark.parametrize("layout", ["flat", "readme", "elsewhere"])
def test_other_layouts_are_found(home: Path, tmp_path: Path, layout: str) -> None:
    folder, settings = tmp_path / "data", {}
    if layout == "flat":
        (folder / "video_train").mkdir(parents=True)
        for video in (home / "video_train").rglob("*.mp4"):
            shutil.copy(video, folder / "video_train")
        shutil.copy(home / "train.json", folder)
    elif layout == "readme":
        shutil.copytree(home / "video_train", folder / "videos" / "train")
        shutil.copytree(home / "annotation_train", folder / "annotations" / "train")
        (folder / "questions").mkdir()
        shutil.copy(home / "train.json", folder / "questions")
    else:
        shutil.copytree(home / "video_train", tmp_path / "films" / "train")
        folder.mkdir()
        shutil.copy(home / "train.json", folder)
        settings = {"videos": str(tmp_path / "films"), "annotations": str(home)}
    found = examples(folder, **settings)
    assert all(Path(row.video.path).is_file() for row in found.values())
    assert {row.clues is None for row in found.values()} == {layout == "flat"}


def test_a_video_that_is_nowhere_keeps_its_official_place(written: Callable[[Scenes], Path]) -> None:
    folder = written([scene("train", 4321)])
    expected = str(folder / "video_train/video_04000-05000/video_04321.mp4")
    assert {row.video.path for row in examples(folder).values()} == {expected}


# ---------------------------------------------------------------------------------------------------------------- clues


def test_events_of_the_annotation_are_clues_in_time_order(home: Path) -> None:
    rate = 128 / 5
    assert examples(home)["1_0"].clues == (
        Clue("the red metal cube enters", 21 / rate, 22 / rate, concepts={"who": "red", "what": "enters"}),
        Clue(
            "the red metal cube hits the blue rubber sphere", 58 / rate, 59 / rate,
            concepts={"who": "red", "what": "hits", "whom": "blue"},
        ),
        Clue("the gray metal cylinder exits", 101 / rate, 102 / rate, concepts={"who": "gray", "what": "exits"}),
    )  # fmt: skip


def test_times_follow_the_rate_and_clues_can_be_left_out(home: Path) -> None:
    assert examples(home, fps=25)["0_0"].clues[1].start_seconds == 57 / 25
    assert all(row.clues is None for row in examples(home, clues=False).values())


def annotated(folder: Path, change: Callable[[dict[str, Any]], None] | str) -> Path:
    """One scene, its annotation changed or replaced."""
    make_clevrer(folder, scenes=1, splits=("train",), missing=(0,))
    value = annotation(0)
    if not isinstance(change, str):
        change(value)
    place(folder, "annotation", "train", 0, "json").write_text(change if isinstance(change, str) else json.dumps(value))
    return folder


def test_what_happens_after_the_video_is_no_clue(tmp_path: Path) -> None:
    def later(value: dict[str, Any]) -> None:
        value["collision"] += [{"object_ids": [0, 2], "frame_id": 128}, {"object_ids": [0, 2], "frame_id": 127}]

    clues = examples(annotated(tmp_path, later))["0_0"].clues
    assert clues is not None
    assert [clue.text for clue in clues if "cylinder" in clue.text] == [
        "the gray metal cylinder exits", "the blue rubber sphere hits the gray metal cylinder",
    ]  # fmt: skip


def test_a_scene_without_annotation_has_unlabelled_questions(tmp_path: Path) -> None:
    make_clevrer(tmp_path, splits=("train",), missing=(0, 1))
    place(tmp_path, "annotation", "train", 1, "json").unlink()
    assert {(row.meta["scene_index"], row.clues is None) for row in examples(tmp_path).values()} == {
        (0, False), (1, True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{", "annotation_00000.json: the file: Invalid JSON"),
        ("[]", "annotation_00000.json: the file"),
        (lambda value: value.pop("collision"), "annotation_00000.json: collision: Field required"),
        (lambda value: value["collision"][0].update(frame_id=-1), "collision.0.frame_id"),
        (lambda value: value["collision"][0].update(frame_id=5.5), "collision.0.frame_id"),
        (lambda value: value["collision"][0].update(object_ids=[0]), "collision.0.object_ids"),
        (lambda value: value["collision"][0].update(object_ids=[0, 9]), "object 9 is not in object_property"),
        (lambda value: value["object_property"][0].update(color=None), "object_property.0.color"),
        (lambda value: value.update(motion_trajectory=[]), "motion_trajectory"),
    ],
)
def test_a_bad_annotation_keeps_the_denominator(tmp_path: Path, change: Any, said: str) -> None:
    found = rows(annotated(tmp_path, change))
    assert {row.reason for row in found if isinstance(row, Quarantined)} == {"bad_clues"}
    assert [(row.id, row.type, row.meta) for row in found] == [
        (row.id, row.type, row.meta) for row in examples(tmp_path, clues=False).values()
    ]
    assert said in bad(found)["0_0"][1]
    assert bad(found)["0_0"][1].startswith("item 1: ")


# ------------------------------------------------------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("question", "change", "row_id", "reason", "said"),
    [
        (0, {"answer": "12"}, "0_0", "answer_outside_options", "answer '12' is none of 0, 1, 2, 3, 4, 5"),
        (0, {"answer": None}, "0_0", "no_answer", "only the test split"),
        (0, {"answer": 1}, "0_0", "answer_outside_options", "answer 1 is none of"),
        (0, {"question_type": "causal"}, "0_0", "unknown_type", "question_type 'causal' is none of descriptive, exp"),
        (0, {"question_type": ["x"]}, "0_0", "unknown_type", "question_type ['x']"),
        (
            0,
            {"question_subtype": "query_size"},
            "0_0",
            "unknown_type",
            "question_subtype 'query_size' is none of count",
        ),
        (0, {"question_subtype": ["count"]}, "0_0", "unknown_type", "question_subtype ['count']"),
        (0, {"question_subtype": None, "question": "Why?"}, "0_0", "unknown_type", "question_subtype None"),
        (0, {"question": " "}, "0_0", "malformed", "question is ' ', must be a text"),
        (0, {"question_id": "0"}, "0_at0", "malformed", "question_id is '0', must be a number from 0"),
        (0, {"question_id": True}, "0_at0", "malformed", "question_id is True"),
        (5, {"choices": []}, "0_5", "bad_options", "choices is []"),
        (5, {"choices": None}, "0_5", "bad_options", "choices is None"),
        (5, {"choices": ["yes"]}, "0_5", "bad_options", "choices.0 is 'yes'"),
    ],
)
def test_a_bad_question_is_quarantined_beside_good_ones(
    written: Callable[[Scenes], Path], question: int, change: dict[str, Any], row_id: str, reason: str, said: str
) -> None:
    changed = scene("train", 0)
    changed["questions"][question].update(change)
    found = rows(written([changed, scene("train", 1)]))
    assert list(bad(found)) == [row_id]
    assert bad(found)[row_id][0] == reason
    assert bad(found)[row_id][1].startswith(f"item 1, questions.{question}: ")
    assert said in bad(found)[row_id][1]
    (row,) = [row for row in found if isinstance(row, Quarantined)]
    assert (row.dataset, Path(row.path).name, row.meta["scene_index"]) == ("clevrer", "train.json", 0)
    assert len(found) == (28 if question == 0 else 25)


def test_a_bad_option_is_quarantined_alone_and_knows_its_question(written: Callable[[Scenes], Path]) -> None:
    changed = scene("train", 0)
    changed["questions"][5]["choices"][2]["answer"] = "maybe"
    changed["questions"][6]["choices"][0]["choice"] = ""
    found = [row for row in rows(written([changed])) if isinstance(row, Quarantined)]
    assert [(row.id, row.reason, row.type) for row in found] == [
        ("0_5_2", "answer_outside_options", "explanatory"), ("0_6_0", "bad_options", "predictive"),
    ]  # fmt: skip
    assert found[0].meta == {"scene_index": 0, "question_id": 5, "choices": 4, "choice_id": 2}
    assert found[0].detail == "item 1, questions.5.choices.2: answer 'maybe' is none of correct, wrong"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scene_index": "0"}, "scene_index is '0', must be a number from 0"),
        ({"video_filename": None}, "video_filename is None, must be a text"),
        ({"questions": {}}, "questions is {}, must be a list"),
    ],
)
def test_a_bad_scene_is_one_row(written: Callable[[Scenes], Path], change: dict[str, Any], said: str) -> None:
    found = rows(written([scene("train", 0), scene("train", 1) | change]))
    assert bad(found) == {"train-2": ("malformed", f"item 2: {said}")}
    assert len(found) == 15


def test_repeated_ids_name_both_places(written: Callable[[Scenes], Path]) -> None:
    with pytest.raises(
        DataError,
        match=r"train.json: item 1 and item 2 have the same scene_index, question_id and choice_id: 0_0. Remove one",
    ):
        rows(written([scene("train", 0), scene("train", 0)]))
    changed = scene("train", 0)
    changed["questions"][5]["choices"][1]["choice_id"] = 0
    with pytest.raises(DataError, match=r"item 1 and item 1 have the same .* choice_id: 0_5_0"):
        rows(written([changed]))


def test_files_that_cannot_be_read_are_errors(written: Callable[[Scenes], Path], home: Path) -> None:
    folder = written([])
    with pytest.raises(DataError, match=r"train.json: empty dataset"):
        rows(folder)
    (folder / "train.json").write_text(json.dumps([scene("train", 0)])[:-40])
    with pytest.raises(DataError, match=r"train.json: starts as a JSON list but is not valid JSON"):
        rows(folder)
    with pytest.raises(MissingDataError, match=r"clevrer.folder: no such file: .*validation.json"):
        rows(folder, "validation")
    with pytest.raises(MissingDataError, match=r"clevrer.videos: no such folder"):
        rows(home, videos=str(folder / "nowhere"))


def test_sources_follow_questions_and_annotations(tmp_path: Path) -> None:
    make_clevrer(tmp_path, splits=("train",), missing=(0, 1))
    before, without = dataset(tmp_path).sources(), dataset(tmp_path, clues=False).sources()
    assert (len(before), without) == (2, before[:1])
    place(tmp_path, "annotation", "train", 1, "json").write_text(json.dumps(annotation(1) | {"collision": []}))
    after = dataset(tmp_path).sources()
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
    (tmp_path / "train.json").write_text(json.dumps([scene("train", 0)]))
    assert dataset(tmp_path).sources()[0] != before[0]


# ------------------------------------------------------------------------------------------------------------ originals


@pytest.mark.parametrize(
    ("original", "video", "name"),
    [
        (_originals.clevrer, "/data/clevrer/video_validation/video_10009.mp4", "clevrer:10009"),
        (_originals.clevrer, "video_train/video_00000-01000/video_00007.mp4", "clevrer:00007"),
        (_originals.clevrer, "frames/video_00007", "clevrer:00007"),
        (_originals.clevrer, "video_7.mp4", None),
        (_originals.charades, "Charades_v1_480/QX7ZT.mp4", "charades:QX7ZT"),
        (_originals.charades, "Charades_segment/QX7ZT_4.2_13.8.mp4", "charades:QX7ZT"),
        (_originals.charades, "frames/QX7ZT.mp4", "charades:QX7ZT"),
        (_originals.charades, "a_video.mp4", None),
        (_originals.vidor, "NExTVideo/0207/5550001112.mp4", "vidor:5550001112"),
        (_originals.vidor, "NExTVideo/5550001112", "vidor:5550001112"),
        (_originals.vidor, "a_video.mp4", None),
    ],
)
def test_originals_are_read_off_file_names(original: Callable[[str], str | None], video: str, name: str | None) -> None:
    assert original(video) == name


def test_the_dataset_names_its_originals() -> None:
    assert ClevrerDataset.source_id("x/video_10009.mp4") == "clevrer:10009"
