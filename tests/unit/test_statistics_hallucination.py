"""Pairs and the bias towards yes, by hand and in plain Python."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluenet.evaluate.reliability import NO_OPTIONS, NO_YES_NO, reliability
from cluenet.metrics.hallucination import MEASURES, YesNo, hallucination, pairs_of
from cluenet.testing.clueworld import WorldSettings, scene_examples
from helpers.samples import sample


def test_every_question_of_clueworlds_hallucination_split_is_in_a_pair_of_yes_and_no(tmp_path: Path) -> None:
    examples = [one for index in range(20) for one in scene_examples(tmp_path, "hallucination", index, WorldSettings())]
    pairs = pairs_of([example.meta.get("pair") for example in examples])
    assert sorted(place for members in pairs for place in members) == list(range(len(examples)))
    for members in pairs:
        both = [examples[place] for place in members]
        assert [example.answer_text for example in both] == ["yes", "no"]
        assert len({(example.video, example.type) for example in both}) == 1


ANSWERS = [  # pairs p: both right, q: yes to both, r: both wrong; one question without its other half
    YesNo("a", "p", says_yes=True, is_yes=True), YesNo("a", "p", says_yes=False, is_yes=False),
    YesNo("a", "q", says_yes=True, is_yes=True), YesNo("b", "q", says_yes=True, is_yes=False),
    YesNo("b", "r", says_yes=False, is_yes=True), YesNo("b", "r", says_yes=True, is_yes=False),
    YesNo("c", None, says_yes=True, is_yes=True), YesNo("c", "alone", says_yes=False, is_yes=False),
]  # fmt: skip


def test_measures_by_hand() -> None:
    found = hallucination(ANSWERS, resamples=300)
    assert list(found) == list(MEASURES)
    assert {name: (round(one["value"], 4), one["n"]) for name, one in found.items()} == {
        "pair_accuracy": (0.3333, 3), "yes_rate": (0.625, 8), "true_yes_rate": (0.5, 8), "yes_bias": (0.125, 8),
        "false_positive_rate": (0.5, 4), "false_positive_ratio": (0.6667, 3),
    }  # fmt: skip


def test_random_answers_agree_with_plain_python() -> None:
    rng = random.Random(1)
    answers = [
        YesNo(f"v{i // 3}", f"p{i}", says_yes=rng.random() < 0.7, is_yes=right) for i in range(60) for right in (True, False)
    ]  # fmt: skip
    found = hallucination(answers, resamples=300)
    right = [one.says_yes == one.is_yes for one in answers]
    expected = {
        "pair_accuracy": sum(a and b for a, b in zip(right[::2], right[1::2])) / 60,
        "yes_bias": sum(one.says_yes for one in answers) / 120 - 0.5,
        "false_positive_rate": sum(one.says_yes for one in answers if not one.is_yes) / 60,
        "false_positive_ratio": sum(one.says_yes and not one.is_yes for one in answers) / (120 - sum(right)),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value)
        assert found[name]["low"] < value < found[name]["high"]


def test_one_who_always_says_yes_has_no_pair_right() -> None:
    found = hallucination([one._replace(says_yes=True) for one in ANSWERS], resamples=100)
    assert found["pair_accuracy"]["value"] == 0.0
    assert found["false_positive_ratio"]["value"] == found["false_positive_rate"]["value"] == 1.0
    perfect = hallucination([one._replace(says_yes=one.is_yes) for one in ANSWERS], resamples=100)
    assert perfect["false_positive_ratio"] == {"value": None, "low": None, "high": None, "n": 0}


def _yes_no(number: int, suffix: str, prediction: int, answer: int | None, **changes) -> dict:
    return sample(
        number, id=f"q{number}-{suffix}", meta={"pair": f"q{number}"}, options=["no", "Yes"], prediction=prediction, answer=answer,
        option_logprobs=[-0.693147] * 2, **changes,
    )  # fmt: skip


def test_results_have_all_yes_no_questions_and_each_type() -> None:
    known = [
        _yes_no(0, "yes", 1, 1, type="object"), _yes_no(0, "no", 1, 0, type="object"),
        _yes_no(1, "yes", 1, 1, type="event", video="v1"), _yes_no(1, "no", 0, 0, type="event", video="v1"),
        sample(9, type="who"),
    ]  # fmt: skip
    blocks, notes = reliability(known, 100)
    assert notes == {}
    found = blocks["hallucination"]
    assert (found["pair_accuracy"]["value"], found["yes_bias"]["value"]) == (0.5, 0.25)
    assert {kind: one["pair_accuracy"]["value"] for kind, one in found["by_type"].items()} == {
        "event": 1.0,
        "object": 0.0,
    }
    assert blocks["calibration"]["brier"]["n"] == 5


def test_where_there_is_nothing_to_measure_the_note_says_why() -> None:
    open_ended = sample(0, options=[], answer=None, option_logprobs=[])
    assert reliability([open_ended], 100) == (
        {"calibration": None, "hallucination": None}, {"calibration": NO_OPTIONS, "hallucination": NO_YES_NO},
    )  # fmt: skip
