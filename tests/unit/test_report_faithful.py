"""Charts about clues, against sums in plain Python over hand-made samples."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from cluenet.report.accuracy import with_noise
from cluenet.report.charts import percentage
from cluenet.report.faithful import BINS, accuracy_by_tokens, gate_charts, kept_by_type, removal, steering
from cluenet.report.sources import Evaluation
from helpers.samples import sample

RNG = random.Random(0)


def _sample(number: int) -> dict:
    line = sample(number, prediction=RNG.choice((0, 1)), video=f"v{number % 9}", type=("who", "count")[number % 2])
    first = {**line["clues"][0], "gate": RNG.random(), "kept": RNG.random() < 0.7}
    second = {**first, "words": ["<t2>", "green", "leaves", "_"], "gate": RNG.random(), "kept": RNG.random() < 0.4}
    useful = [RNG.random() < first["gate"], RNG.random() < second["gate"]]
    worth = {"kind": "leave_one_out", "delta": 0.02, "utility": [1.0 if one else -1.0 for one in useful], "useful": useful,
             "unfiltered": RNG.choice((0, 1))}  # fmt: skip
    noise = {"after": RNG.choice((0, 1))} if number % 3 else None
    return {**line, "clues": [first, second], "diagnostics": {"filter": worth}, "faithfulness": {"noise": noise},
            "tokens": {"visual": 16, "seen": 16, "clue_words": 0}}  # fmt: skip


SAMPLES = [_sample(number) for number in range(60)]
EVALUATION = Evaluation("a", {}, SAMPLES, {"bootstrap": 50})


def test_kept_share_by_type() -> None:
    chart = kept_by_type(EVALUATION)
    assert chart is not None
    (series,) = chart.series
    assert [mark.where for mark in series.marks] == ["all types", "count", "who"]
    for mark in series.marks:
        kept = [c["kept"] for s in SAMPLES if mark.where in ("all types", s["type"]) for c in s["clues"]]
        assert mark.value == percentage(fmean(kept))
    assert kept_by_type(Evaluation("a", {}, [sample(1, clues=[])], {})) is None


def test_useful_share_by_gate() -> None:
    scatter, calibration = gate_charts(EVALUATION)
    pairs = sorted(
        (clue["gate"], useful)
        for s in SAMPLES
        for clue, useful in zip(s["clues"], s["diagnostics"]["filter"]["useful"])
    )
    size = len(pairs) // BINS
    bins = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    assert [mark.value for mark in calibration.series[0].marks] == [
        percentage(fmean(u for _, u in one)) for one in bins
    ]
    assert [mark.where for mark in calibration.series[0].marks] == [
        f"gate {fmean(g for g, _ in one):.4g}" for one in bins
    ]
    right = sum(2 for s in SAMPLES if s["correct"])
    assert [len(series.marks) for series in scatter.series] == [right, len(pairs) - right]
    assert gate_charts(Evaluation("a", {}, [sample(1)], {})) == []


def test_accuracy_against_tokens() -> None:
    chart = accuracy_by_tokens(EVALUATION)
    assert chart is not None
    found = {series.name: (series.marks[0].where, series.marks[0].value) for series in chart.series}

    def words(s: dict, kept_only: bool) -> int:
        return sum(word != "_" for c in s["clues"] if c["kept"] or not kept_only for word in c["words"])

    for name, right, read in (
        ("no clues", [s["rows"]["none"]["correct"] for s in SAMPLES], [0.0] * 60),
        ("kept clues", [s["correct"] for s in SAMPLES], [words(s, True) for s in SAMPLES]),
        ("all stated clues", [s["diagnostics"]["filter"]["unfiltered"] == 0 for s in SAMPLES], [words(s, False) for s in SAMPLES]),
    ):  # fmt: skip
        assert found[name] == (f"tokens {16 + fmean(read):.4g}", percentage(fmean(right)))
    assert accuracy_by_tokens(Evaluation("a", {}, [sample(1, rows={})], {})) is None  # one way of answering alone


def test_accuracy_with_a_foreign_clue() -> None:
    met = [s for s in SAMPLES if s["faithfulness"]["noise"]]
    found = with_noise(EVALUATION)
    assert found is not None
    assert found["all types"]["n"] == len(met) == 40
    assert found["all types"]["value"] == pytest.approx(fmean(s["faithfulness"]["noise"]["after"] == 0 for s in met))
    counting = [s for s in met if s["type"] == "count"]
    assert found["count"]["value"] == pytest.approx(fmean(s["faithfulness"]["noise"]["after"] == 0 for s in counting))
    assert with_noise(Evaluation("a", {}, [sample(1)], {})) is None


def test_removal_and_steering_are_those_of_results_json() -> None:
    def estimate(value: float) -> dict:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}

    at = [{"clues": n, **estimate(0.9 - 0.3 * n), "random": estimate(0.9 - 0.2 * n)} for n in range(3)]
    block = {
        "deletion": {"at": at},
        "swap": {"flip": estimate(0.5), "steer": estimate(0.25)},
        "noise": {"kept": {**estimate(0.1), "n": 0}},
    }
    evaluation = Evaluation("a", {"faithfulness": block}, [], {})
    (deletion,) = removal(evaluation)
    assert {series.name: [mark.value for mark in series.marks] for series in deletion.series} == {
        "by importance": ["90.0 %", "60.0 %", "30.0 %"], "in random order": ["90.0 %", "70.0 %", "50.0 %"]
    }  # fmt: skip
    chart = steering(evaluation)
    assert chart is not None
    assert [mark.words for mark in chart.series[0].marks] == [
        "another video's clues: answer changes: 50.0 % [40.0 % .. 60.0 %]",
        "another video's clues: takes their answer: 25.0 % [15.0 % .. 35.0 %]",
    ]
    assert steering(Evaluation("a", {}, [], {})) is None
