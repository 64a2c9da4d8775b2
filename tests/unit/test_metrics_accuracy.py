"""Accuracy by hand and against plain Python on random answers."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from cluenet.metrics.accuracy import accuracy, accuracy_on_all, chance, is_right, position_counts


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [(1, 1, True), (1, 0, False), ("Red  square", "red square", True), ("red", "red square", False), ("3", "3", True)],
)
def test_is_right(prediction: int | str, answer: int | str, right: bool) -> None:
    assert is_right(prediction, answer) is right


def test_micro_and_macro_by_hand() -> None:
    found = accuracy([True, True, False, False], ["who", "who", "who", "count"], ["a", "a", "b", "b"], resamples=100)
    assert found.overall.value == 0.5
    assert found.overall.n == 4
    assert found.by_type["who"].value == pytest.approx(2 / 3)
    assert found.by_type["count"].value == 0
    assert found.macro.value == pytest.approx(1 / 3)
    assert found.macro.n == 2
    assert list(found.by_type) == ["count", "who"]


def test_against_plain_python_on_random_answers() -> None:
    rng = random.Random(0)
    rows = [(rng.random() < 0.4, rng.choice(["a", "b", "c"]), f"v{rng.randrange(20)}") for _ in range(300)]
    found = accuracy(*map(list, zip(*rows)), resamples=200)  # type: ignore[arg-type]
    by_type = {kind: fmean(right for right, own, _ in rows if own == kind) for kind in "abc"}
    assert {kind: interval.value for kind, interval in found.by_type.items()} == pytest.approx(by_type)
    assert found.overall.value == pytest.approx(fmean(right for right, _, _ in rows))
    assert found.macro.value == pytest.approx(fmean(by_type.values()))
    for interval in (found.overall, found.macro, *found.by_type.values()):
        assert interval.low is not None
        assert interval.value is not None
        assert interval.high is not None
        assert interval.low < interval.value < interval.high


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng, covered, rounds = random.Random(7), 0, 150
    for _ in range(rounds):
        rows = []
        for video in range(60):
            skill = rng.random()  # mean 0.5, so questions of one video hang together
            rows += [(rng.random() < skill, f"v{video}") for _ in range(4)]
        right, videos = zip(*rows)
        interval = accuracy(right, ["all"] * len(rows), videos, resamples=300).overall
        covered += interval.low <= 0.5 <= interval.high  # type: ignore[operator]
    assert 0.88 <= covered / rounds <= 1.0


def test_nothing_answered() -> None:
    found = accuracy([], [], [], resamples=100)
    assert (found.overall.value, found.macro.value, found.overall.n, found.by_type) == (None, None, 0, {})
    assert found.to_dict()["overall"] == {"value": None, "low": None, "high": None, "n": 0}


def test_quarantined_questions_count_as_wrong_on_the_larger_denominator() -> None:
    found = accuracy_on_all([True, True, False], ["a", "b", "c"], ["d"], resamples=100)
    assert found.value == 0.5
    assert found.n == 4
    assert accuracy_on_all([], [], ["d"], resamples=100).value == 0.0


def test_chance() -> None:
    assert chance([4, 5]) == pytest.approx(0.225)
    assert chance([2, 0]) == 0.25  # an open question cannot be guessed
    assert chance([]) is None


def test_position_counts() -> None:
    assert position_counts([0, 2, 2], 4) == [1, 0, 2, 0]
    assert position_counts([], 0) == []
