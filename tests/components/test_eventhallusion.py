"""The `eventhallusion` dataset on a miniature in the repository's format: rows, measures, prediction file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.evaluate.benchmark import measurable
from cluenet.metrics.benchmarks import measured
from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet.verdicts import Verdict
from cluenet_components.datasets._eventhallusion_metrics import KINDS, measures, result_files
from cluenet_components.datasets.eventhallusion import EventHallusionDataset
from helpers.benchmarks.eventhallusion import ANSWERS, eventhallusion_record, make_eventhallusion

COUNTS = {"entire": 114, "misleading": 102, "interleave": 193}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_eventhallusion(tmp_path / "EventHallusion")


def dataset(home: Path, **settings: Any) -> EventHallusionDataset:
    return EventHallusionDataset.Config(**{"folder": str(home), "videos": str(home / "videos"), **settings}).build()


def rows(home: Path, *kinds: str, **settings: Any) -> list[Any]:
    return list(dataset(home, **({"kinds": kinds} if kinds else {}), **settings).rows())


def write(home: Path, kind: str, *records: Any) -> None:
    (home / "questions" / f"{kind}_questions.json").write_text(json.dumps(records))


def test_an_official_row(home: Path) -> None:
    record = eventhallusion_record("entire", 1)
    asked = record.pop("questions")
    first, second, *_ = rows(home)
    assert first == Example(
        id="entire_001-0", dataset="eventhallusion", video=VideoRef(str(home / "videos/entire/entire_001.mp4")),
        question="Is the man eating part 0 of it?", options=("yes", "no"), answer=1, type="entire",
        clues=(Clue("A man holds a fish."),), meta={"record": record, "question": asked[0]},
    )  # fmt: skip
    assert (second.id, second.video, second.meta["question"]) == ("entire_001-1", first.video, asked[1])


def test_kinds_their_answers_and_the_clues_that_happen(home: Path) -> None:
    found = rows(home)
    assert {(row.type, row.answer_text) for row in found} == {
        ("entire", "no"), ("misleading", "no"), ("interleave", "yes")
    }  # fmt: skip
    assert [clue.text for clue in found[-1].clues] == ["A man holds a fish.", "The bird takes the fish."]
    assert not any("eats" in clue.text for row in found for clue in row.clues), "the bias does not happen"
    assert [row.type for row in rows(home, "interleave", "misleading")] == ["misleading"] * 2 + ["interleave"] * 2
    assert len(dataset(home, kinds=["entire"]).sources()) == 1
    assert dataset(home).official_counts["test"] == {**COUNTS, "questions": 409, "videos": 397}


def test_unknown_fields_are_kept(home: Path) -> None:
    record = eventhallusion_record("misleading", 1) | {"source": "web", "event_info": None}
    record["questions"][0]["level"] = 3
    write(home, "misleading", record)
    (row,) = rows(home, "misleading")
    assert (row.meta["record"]["source"], row.meta["question"]["level"], row.clues) == ("web", 3, None)


def test_videos_may_lie_flat_and_questions_in_the_folder_itself(home: Path) -> None:
    flat = home / "flat"
    flat.mkdir()
    (home / "videos/entire/entire_002.mp4").rename(flat / "entire_002.mp4")
    paths = [row.video.path for row in rows(home / "questions", "entire", videos=str(flat))]
    assert paths == [str(flat / f"entire_{number}.mp4") for number in ("001", "001", "002")]
    assert rows(home, "entire")[-1].video.path == str(home / "videos/entire/entire_002.mp4"), "where it should be"


@pytest.mark.parametrize(
    ("change", "ids", "reason", "said"),
    [
        ({"id": ""}, ["misleading_questions-2-0"], "malformed", "id is '', must be the name of a video"),
        ({"id": "../x"}, ["../x-0"], "malformed", "id is '../x'"),
        ({"questions": []}, ["m-0"], "malformed", "questions is [], must be a list of questions"),
        ({"questions": "why"}, ["m-0"], "malformed", "questions is 'why'"),
        ({"questions": [{"answer": "No."}]}, ["m-0"], "malformed", "questions.0 is {'answer': 'No.'}, must have a text"),
        ({"questions": [{"question": "q", "answer": "Nope."}]}, ["m-0"], "answer_outside_options",
         "questions.0: answer 'Nope.' is none of yes, no"),
        ({"questions": [4, 5]}, ["m-0", "m-1"], "malformed", "questions.0 is 4"),
    ],
)  # fmt: skip
def test_bad_rows_are_quarantined_beside_good_ones(
    home: Path, change: dict[str, Any], ids: list[str], reason: str, said: str
) -> None:
    good = [eventhallusion_record("misleading", number) for number in (1, 2)]
    write(home, "misleading", good[0], {**good[0], "id": "m"} | change, good[1])
    before, *bad, after = rows(home, "misleading")
    assert (before.id, after.id) == ("misleading_001-0", "misleading_002-0")
    assert [row.id for row in bad] == ids
    assert all(isinstance(row, Quarantined) for row in bad)
    assert {(row.reason, row.type, row.path) for row in bad} == {
        (reason, "misleading", str(home / "questions/misleading_questions.json"))
    }
    assert bad[0].detail.startswith(f"item 2: {said}")


def test_a_record_that_is_no_object_is_quarantined(home: Path) -> None:
    write(home, "misleading", 7, eventhallusion_record("misleading", 1))
    bad, good = rows(home, "misleading")
    assert (bad.id, bad.detail) == ("misleading_questions-1-0", "item 1: a JSON object is wanted, not 7")
    assert good.id == "misleading_001-0"


def test_files_that_are_wrong_as_a_whole(home: Path) -> None:
    record = eventhallusion_record("entire", 1)
    write(home, "entire", record, eventhallusion_record("entire", 2), record)
    with pytest.raises(DataError, match=r"entire_questions.json: item 1 and item 3 have the same id: entire_001"):
        rows(home)
    file = home / "questions/entire_questions.json"
    file.write_text(file.read_text()[:-4])
    with pytest.raises(DataError, match="is not valid JSON"):
        rows(home)
    file.unlink()
    with pytest.raises(DataError, match=r"eventhallusion.folder: no such file: .*entire_questions.json"):
        rows(home)
    with pytest.raises(DataError, match=r"eventhallusion.videos: no such folder"):
        rows(home, "misleading", videos=str(home / "films"))
    assert len(list(dataset(home, kinds=["misleading"], videos=str(home / "films")).described())) == 2


# --------------------------------------------------------------------------------------------------------- measures


def verdict(kind: str, number: int, prediction: int | None) -> Verdict:
    record = {**eventhallusion_record(kind, number), "id": f"{kind}_{number:03d}"}
    (asked, *_) = record.pop("questions")
    answer = 0 if ANSWERS[kind] == "Yes." else 1
    return Verdict(
        f"{record['id']}-0", record["id"], kind, ("yes", "no"), answer, prediction, prediction == answer,
        meta={"record": record, "question": asked}, asked=prediction is not None,
    )  # fmt: skip


def values(verdicts: list[Verdict]) -> dict[str, float]:
    return {name: one["value"] for name, one in measured(measures(verdicts), resamples=50).items()}


def test_a_constant_no_gets_more_than_half_and_its_yes_rate_says_why() -> None:
    found = values([verdict(kind, number, 1) for kind, count in COUNTS.items() for number in range(count)])
    assert round(100 * found["accuracy"], 1) == 52.8
    assert found == pytest.approx(
        {"accuracy": 216 / 409, "entire/accuracy": 1, "misleading/accuracy": 1, "interleave/accuracy": 0}
        | dict.fromkeys(("yes_rate", "entire/yes_rate", "misleading/yes_rate", "interleave/yes_rate"), 0)
    )


def eval_py(predictions: dict[str, Any]) -> dict[str, float]:
    """The rule of the repository's script, which reads the first letters of a reply."""
    found: dict[str, float] = {}
    right = total = 0
    for kind, videos in predictions.items():
        said = []
        for video in videos.values():
            assert video["judgement"].replace("*", "").lower() == ""  # what the script does with it must work
            for qa in video["qa"]:
                reply = None if qa["prediction"] is None else qa["prediction"].lower()
                word = (
                    None
                    if reply is None
                    else "Yes."
                    if reply.startswith("yes")
                    else "No."
                    if reply.startswith("no")
                    else None
                )
                said.append(word == qa["answer"])
        right, total = right + sum(said), total + len(said)
        found[f"{kind}/accuracy"] = sum(said) / len(said)
    return found | {"accuracy": right / total}


def test_random_replies_agree_with_the_official_script() -> None:
    rng = random.Random(0)
    made = [
        verdict(kind, number, rng.choice((0, 1, None))) for kind in KINDS for number in range(rng.randrange(20, 60))
    ]
    rng.shuffle(made)
    expected = eval_py(json.loads(result_files(made)["predictions.json"]))
    found = values(made)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["yes_rate"] == pytest.approx(sum(one.prediction == 0 for one in made) / len(made))


def test_the_prediction_file_is_the_records_with_replies(home: Path) -> None:
    asked = [row for row in rows(home, "entire") if isinstance(row, Example)]
    said = [0, None, 1]
    made = [
        Verdict(row.id, row.video.path, row.type, row.options, row.answer, reply, reply == row.answer, meta=row.meta)
        for row, reply in zip(asked, said, strict=True)
    ]
    found = json.loads(result_files(made[::-1])["predictions.json"])
    record = eventhallusion_record("entire", 1)
    questions = [{name: one[name] for name in ("question", "answer")} for one in record["questions"]]
    assert found["entire"]["entire_001"] == {
        **record, "desc": "", "judgement": "",
        "qa": [{**questions[0], "prediction": "Yes."}, {**questions[1], "prediction": None}],
    }  # fmt: skip
    assert found["entire"]["entire_002"]["qa"][0]["prediction"] == "No."


def test_descriptions_are_asked_on_demand_and_only_stand_in_the_file(home: Path) -> None:
    assert len(rows(home)) == 7
    found = rows(home, descriptions=True)
    asked = [row for row in found if row.id.endswith("-description")]
    assert [row for row in found if row not in asked] == rows(home)
    assert [row.id for row in asked[:2]] == ["entire_001-description", "entire_002-description"]
    assert {(row.question, row.options, row.answer) for row in asked} == {
        ("Please describe this video in detail.", (), None)
    }
    assert {row.type: row.video for row in asked} == {row.type: row.video for row in rows(home)}

    made = [
        Verdict(row.id, row.video.path, row.type, row.options, row.answer, 0 if row.options else f"A film of {row.type}.",
                correct=row.answer == 0, meta=row.meta, hidden=row.answer is None)
        for row in found
    ]  # fmt: skip
    assert values(measurable(made)) == values([one for one in made if one.options])
    told = json.loads(result_files(made[:-1])["predictions.json"])
    assert told["entire"]["entire_001"]["desc"] == "A film of entire."
    assert [len(one["qa"]) for one in told["entire"].values()] == [2, 1]
    assert told["interleave"]["interleave_002"]["desc"] == "", "not described"
    assert eval_py(told)["accuracy"] == values(measurable(made))["accuracy"]


def test_a_record_whose_questions_cannot_be_told_counts_as_one_wrong_answer(home: Path) -> None:
    write(home, "misleading", {"id": "m", "questions": None}, eventhallusion_record("misleading", 1))
    bad, good = rows(home, "misleading")
    made = [
        Verdict(bad.id, bad.path, bad.type, meta=bad.meta, asked=False),
        Verdict(good.id, good.video.path, good.type, good.options, 1, 1, correct=True, meta=good.meta),
    ]
    assert values(made)["misleading/accuracy"] == 0.5
    assert eval_py(json.loads(result_files(made)["predictions.json"]))["accuracy"] == 0.5
