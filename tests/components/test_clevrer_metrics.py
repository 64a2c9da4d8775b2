"""CLEVRER's metrics against its published rules, and its submission file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluenet.evaluate.benchmark import benchmark
from cluenet.metrics.benchmarks import measured
from cluenet.records import Example, Quarantined
from cluenet.verdicts import Verdict
from cluenet_components.datasets.clevrer import ClevrerDataset
from helpers.benchmarks.clevrer import make_clevrer, scene

Predict = Callable[[Example], int | None]
CHOICE_TYPES = ("explanatory", "predictive", "counterfactual")


def verdicts(folder: Path, split: str, predict: Predict) -> list[Verdict]:
    """As evaluation makes them from samples and from quarantined rows."""
    found = []
    for row in ClevrerDataset.Config(folder=str(folder), split=split).build().rows():
        if isinstance(row, Quarantined):
            found.append(Verdict(row.id, row.path, row.type, meta=row.meta, asked=False))
            continue
        told = predict(row)
        right = told is not None and told == row.answer
        hidden = row.answer is None
        found.append(
            Verdict(
                row.id, row.video.path, row.type, row.options, row.answer, told, right, meta=row.meta, hidden=hidden
            )
        )
    return found


def values(found: Sequence[Verdict]) -> dict[str, float | None]:
    return {name: one["value"] for name, one in measured(ClevrerDataset.measures(found), resamples=20).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_clevrer(tmp_path, scenes=8, splits=("validation", "test"), missing=range(20_000))


def official(scenes: list[dict[str, Any]], told: dict[tuple[int, ...], str]) -> dict[str, float]:
    """`run_oe.py` and `run_mc.py` in plain Python; what is not in `told` matches no answer."""
    right: dict[str, list[bool]] = {"descriptive": []}
    for kind in (*CHOICE_TYPES, "multiple_choice"):
        right |= {f"{kind}.per_option": [], f"{kind}.per_question": []}
    for one in scenes:
        for question in one["questions"]:
            key, kind = (one["scene_index"], question["question_id"]), question["question_type"]
            if kind == "descriptive":
                right["descriptive"].append(told.get(key) == question["answer"])
                continue
            good = [told.get((*key, choice["choice_id"])) == choice["answer"] for choice in question["choices"]]
            for name in (kind, "multiple_choice"):
                right[f"{name}.per_option"] += good
                right[f"{name}.per_question"].append(False not in good)
    found = {name: sum(rows) / len(rows) for name, rows in right.items()}
    found["average"] = (found["descriptive"] + sum(found[f"{kind}.per_question"] for kind in CHOICE_TYPES)) / 4
    questions = right["descriptive"] + right["multiple_choice.per_question"]
    return {**found, "questions": sum(questions) / len(questions)}


@pytest.mark.parametrize("seed", range(5))
def test_the_published_rules_on_random_predictions_with_missing_ones(folder: Path, seed: int) -> None:
    rng = random.Random(seed)

    def predict(example: Example) -> int | None:
        if rng.random() < 0.1:
            return None
        return example.answer if rng.random() < 0.7 else rng.randrange(len(example.options))

    found = verdicts(folder, "validation", predict)
    told = {
        tuple(one.meta[name] for name in ("scene_index", "question_id", "choice_id") if name in one.meta):
        one.options[one.prediction]
        for one in found if one.prediction is not None
    }  # fmt: skip
    rules = official(json.loads((folder / "validation.json").read_text()), told)
    assert values(found) == pytest.approx(rules)
    assert 0 < rules["explanatory.per_question"] < rules["explanatory.per_option"] < 1


def test_constant_answers_by_hand(folder: Path) -> None:
    """Scene: 4 explanatory options with 2 right, 2 predictive with 1, 3 counterfactual with 1; five descriptive."""
    always_correct = values(verdicts(folder, "validation", lambda example: 0))
    assert always_correct["explanatory.per_option"] == pytest.approx(2 / 4)
    assert always_correct["multiple_choice.per_option"] == pytest.approx(4 / 9)
    assert always_correct["multiple_choice.per_question"] == 0
    assert always_correct["descriptive"] == pytest.approx(2 / 5)  # the first options: metal, cube
    assert always_correct["average"] == pytest.approx(0.1)
    assert always_correct["questions"] == pytest.approx(2 / 8)
    perfect = values(verdicts(folder, "validation", lambda example: example.answer))
    assert set(perfect.values()) == {1.0}


def test_a_missing_option_makes_its_question_wrong_among_the_answered_too(tmp_path: Path) -> None:
    changed = scene("validation", 10_000)
    changed["questions"][5]["choices"][2]["answer"] = "maybe"
    changed["questions"][6]["choices"] = None
    (tmp_path / "validation.json").write_text(json.dumps([changed, scene("validation", 10_001)]))
    found = verdicts(tmp_path, "validation", lambda example: example.answer)
    scores = values(found)
    assert (scores["explanatory.per_option"], scores["explanatory.per_question"]) == (7 / 8, 1 / 2)
    assert (scores["predictive.per_option"], scores["predictive.per_question"]) == (2 / 3, 1 / 2)
    answered = values([one for one in found if one.prediction is not None])
    assert (answered["explanatory.per_option"], answered["explanatory.per_question"]) == (1, 1 / 2)
    assert answered["predictive.per_question"] == 1


def test_rows_of_unknown_type_count_in_the_total_alone(tmp_path: Path) -> None:
    changed = scene("validation", 10_000)
    changed["questions"][0]["question_type"] = "x"
    (tmp_path / "validation.json").write_text(json.dumps([changed, "no scene"]))
    scores = measured(ClevrerDataset.measures(verdicts(tmp_path, "validation", lambda example: example.answer)))
    assert (scores["questions"]["value"], scores["questions"]["n"]) == (7 / 9, 9)
    assert (scores["descriptive"]["value"], scores["descriptive"]["n"]) == (1, 4)


def test_the_submission_has_every_question_as_the_server_wants_it(folder: Path) -> None:
    def predict(example: Example) -> int | None:
        return None if example.id in ("15000_1", "15001_5_3") else len(example.options) - 1

    found = verdicts(folder, "test", predict)
    assert all(one.answer is None for one in found)
    (name,), (text,) = zip(*ClevrerDataset.result_files(found[::-1]).items(), strict=True)
    assert name == "clevrer_submission.json"
    scenes = json.loads(text)
    assert [one["scene_index"] for one in scenes] == list(range(15_000, 15_008))
    assert [one["question_id"] for one in scenes[0]["questions"]] == list(range(8))
    assert scenes[0]["questions"][:2] == [{"question_id": 0, "answer": "5"}, {"question_id": 1, "answer": "error"}]
    assert scenes[1]["questions"][5] == {
        "question_id": 5,
        "choices": [
            *({"choice_id": number, "answer": "wrong"} for number in range(3)), {"choice_id": 3, "answer": "error"},
        ],
    }  # fmt: skip


def test_hidden_answers_are_not_scored(folder: Path) -> None:
    assert benchmark(ClevrerDataset, verdicts(folder, "test", lambda example: 0), 20) is None


def test_lost_rows_stay_in_the_submission_where_their_question_is_known(tmp_path: Path) -> None:
    changed = scene("test", 15_000)
    changed["questions"][5]["choices"][2]["choice"] = None
    changed["questions"][0]["question"] = None
    changed["questions"][1]["question_type"] = "x"
    (tmp_path / "test.json").write_text(json.dumps([changed, 5]))
    files = ClevrerDataset.result_files(verdicts(tmp_path, "test", lambda example: 0))
    (one,) = json.loads(files["clevrer_submission.json"])
    assert [question["question_id"] for question in one["questions"]] == [0, 2, 3, 4, 5, 6, 7]
    assert one["questions"][0]["answer"] == "error"
    assert [choice["answer"] for choice in one["questions"][4]["choices"]] == ["correct", "correct", "error", "correct"]
