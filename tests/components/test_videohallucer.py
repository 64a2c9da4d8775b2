"""The `videohallucer` dataset on a miniature in the repository's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.records import Example, Quarantined, VideoRef
from cluenet_components.datasets.videohallucer import VideoHallucerDataset
from helpers.benchmarks.videohallucer import CATEGORIES, make_videohallucer, videohallucer_row


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_videohallucer(tmp_path / "videohallucer_datasets")


def rows(home: Path, *categories: str) -> list[Any]:
    return list(dataset(home, *categories).rows())


def dataset(home: Path, *categories: str) -> VideoHallucerDataset:
    return VideoHallucerDataset.Config(folder=str(home), **({"categories": categories} if categories else {})).build()


def write(home: Path, category: str, *records: Any) -> None:
    (home / category / f"{category}.json").write_text(json.dumps(records))


def test_the_sides_of_an_official_pair(home: Path) -> None:
    record = videohallucer_row("object_relation", 1)
    common = {"dataset": "videohallucer", "options": ("yes", "no"), "type": "object_relation",
              "video": VideoRef(str(home / "object_relation/videos/1_a.mp4"))}  # fmt: skip
    meta = {"pair": "object_relation-0001", "type": "object"}
    assert rows(home)[2:4] == [
        Example(id="object_relation-0001-basic", question="Is there a kettle in object_relation 1?", answer=0, **common,
                meta={**meta, "side": "basic", "record": record["basic"], "is_yes": True}),
        Example(id="object_relation-0001-hallucination", question="Is there a piano in object_relation 1?", answer=1, **common,
                meta={**meta, "side": "hallucination", "record": record["hallucination"], "is_yes": False}),
    ]  # fmt: skip


def test_the_five_categories_of_the_paper_are_asked_and_interaction_on_demand(home: Path) -> None:
    found = rows(home)
    assert list(dict.fromkeys(row.type for row in found)) == list(CATEGORIES[:-1])
    assert len({row.id for row in found}) == len(found) == 5 * 2 * 2
    assert [row.type for row in rows(home, "interaction", "temporal")] == ["temporal"] * 4 + ["interaction"] * 4
    assert len(dataset(home, "interaction").sources()) == 1


def test_a_semantic_detail_pair_is_about_two_videos(home: Path) -> None:
    basic, hallucination = rows(home, "semantic_detail")[:2]
    names = [Path(row.video.path).name for row in (basic, hallucination)]
    assert names == ["0_a.mp4", "0_b.mp4"]
    assert basic.meta["pair"] == hallucination.meta["pair"]


def test_external_categories_share_videos_and_questions_but_no_ids_or_pairs(home: Path) -> None:
    factual, nonfactual = rows(home, "external_factual"), rows(home, "external_nonfactual")
    assert [row.video for row in factual] == [row.video for row in nonfactual]
    assert factual[0].question == nonfactual[0].question
    assert not {row.id for row in factual} & {row.id for row in nonfactual}
    assert not {row.meta["pair"] for row in factual} & {row.meta["pair"] for row in nonfactual}


def test_a_categorys_own_video_comes_first_and_a_missing_one_keeps_its_place(home: Path) -> None:
    (home / "external_nonfactual/videos/0_a.mp4").touch()
    (home / "external_factual/videos/1_a.mp4").unlink()
    paths = [row.video.path for row in rows(home, "external_nonfactual")[::2]]
    assert paths == [str(home / f"external_nonfactual/videos/{name}") for name in ("0_a.mp4", "1_a.mp4")]


def test_files_of_another_length_than_the_papers_are_read(home: Path) -> None:
    write(home, "temporal", *(videohallucer_row("temporal", number) for number in range(176)))
    found = rows(home, "temporal")
    assert (len(found), found[-1].id) == (352, "temporal-0175-hallucination")
    assert "temporal" not in dataset(home).official_counts["test"]


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"answer": "maybe"}, "answer_outside_options", "hallucination: answer 'maybe' is none of yes, no"),
        ({"answer": None}, "answer_outside_options", "hallucination: answer None"),
        ({"question": ""}, "malformed", "hallucination: question is ''"),
        ({"video": 3}, "malformed", "hallucination: video is 3"),
        ({"video": "../0_a.mp4"}, "malformed", "hallucination: video is '../0_a.mp4', must be the name of a file"),
    ],
)
def test_a_bad_side_is_quarantined_and_the_other_one_stays(
    home: Path, change: dict[str, Any], reason: str, said: str
) -> None:
    good = videohallucer_row("temporal", 0)
    bad = {**good, "hallucination": good["hallucination"] | change}
    write(home, "temporal", good, bad)
    *_, basic, wrong = rows(home, "temporal")
    assert (basic.id, type(wrong)) == ("temporal-0001-basic", Quarantined)
    assert (wrong.id, wrong.reason, wrong.type, wrong.path) == (
        "temporal-0001-hallucination", reason, "temporal", str(home / "temporal/temporal.json"),
    )  # fmt: skip
    assert wrong.detail.startswith(f"item 2: {said}")
    assert wrong.meta == {"pair": "temporal-0001", "side": "hallucination", "record": bad["hallucination"], "type": None,
                          "is_yes": False}  # fmt: skip


def test_a_bad_pair_is_two_bad_rows_so_that_the_denominators_stay(home: Path) -> None:
    write(home, "temporal", 7, {"basic": None}, videohallucer_row("temporal", 0))
    found = rows(home, "temporal")
    assert [type(row) for row in found] == [Quarantined] * 4 + [Example] * 2
    assert [row.id for row in found[:4]] == [
        f"temporal-000{n}-{side}" for n in range(2) for side in ("basic", "hallucination")
    ]
    assert [row.meta["is_yes"] for row in found] == [True, False] * 3
    assert found[0].detail == "item 1: a JSON object is wanted, not 7"
    assert found[2].detail.startswith("item 2: basic is None, must be an object with video, question and answer")


def test_missing_and_broken_files_are_errors(home: Path) -> None:
    file = home / "temporal/temporal.json"
    file.write_text(file.read_text()[:-3])
    with pytest.raises(DataError, match=r"temporal.json: starts as a JSON list but is not valid JSON"):
        rows(home)
    file.unlink()
    with pytest.raises(DataError, match=r"videohallucer.folder: no such file: .*temporal.json"):
        rows(home)
    with pytest.raises(DataError, match=r"videohallucer.folder: no such folder"):
        rows(home / "nothing")
