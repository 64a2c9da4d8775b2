"""Measures of benchmarks: ratios and macro means with their errors, and what is counted where a question got no answer."""

from __future__ import annotations

import random
from statistics import stdev

import pytest

from cluenet.contracts import Dataset
from cluenet.evaluate.benchmark import benchmark, verdicts_of
from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import MeanOf, Measure, Share, Verdict, accuracy_share


def test_a_share_is_a_ratio_of_sums_and_a_macro_mean_counts_every_share_once() -> None:
    found = measured([
        MeanOf("mean", ("a", "b", "empty")), Share("a", ["v", "w", "x"], [1, 0, 1]), Share("b", ["v"], [0.5]),
        Share("empty", [], []), Share("bias", ["v", "w"], [3, -1], [2, 6]),
    ])  # fmt: skip
    assert list(found) == ["mean", "a", "b", "empty", "bias"]
    assert found["a"]["value"] == pytest.approx(2 / 3)
    assert found["mean"]["value"] == pytest.approx((2 / 3 + 0.5) / 2)
    assert found["bias"]["value"] == pytest.approx(2 / 8)
    assert found["empty"] == {"value": None, "stderr": None, "low": None, "high": None, "n": 0}
    assert [found[name]["n"] for name in ("a", "bias", "mean")] == [3, 2, 2]


def test_the_standard_error_is_that_of_a_bootstrap_over_videos_in_plain_python() -> None:
    rng = random.Random(0)
    rows = [(f"v{video}", float(rng.random() < 0.6)) for video in range(60) for _ in range(rng.randrange(1, 5))]
    found = measured([Share("acc", [video for video, _ in rows], [value for _, value in rows])], resamples=2000)["acc"]
    by_video: dict[str, list[float]] = {}
    for video, value in rows:
        by_video.setdefault(video, []).append(value)
    means = []
    for _ in range(2000):
        drawn = [value for name in rng.choices(list(by_video), k=len(by_video)) for value in by_video[name]]
        means.append(sum(drawn) / len(drawn))
    assert found["stderr"] == pytest.approx(stdev(means), rel=0.1)
    assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize(
    "measures", [[Share("a", [], []), Share("a", [], [])], [MeanOf("m", ("a",))]], ids=["same name", "of nothing"]
)
def test_measures_that_contradict_each_other_are_refused(measures: list[Measure]) -> None:
    with pytest.raises(ValueError, match="names must differ"):
        measured(measures)


class Toy(Dataset):
    @classmethod
    def measures(cls, verdicts):
        kinds = sorted({one.type for one in verdicts if one.type})
        shares = [accuracy_share(kind, [one for one in verdicts if one.type == kind]) for kind in kinds]
        return [accuracy_share("acc", verdicts), *shares]

    def rows(self):
        raise NotImplementedError

    def sources(self):
        raise NotImplementedError


def sample(number: int, **changes) -> dict:
    own = {"prediction": 0, "answer": 0, "correct": True, "type": "T", "options": ["x", "y"], "meta": {}, "clues": []}
    return {"id": f"q{number}", "video": f"v{number}", **own, **changes}


def test_what_got_no_answer_is_wrong_in_all_and_left_out_of_answered() -> None:
    samples = [sample(0), sample(1, prediction=1, correct=False), sample(2, prediction=None, correct=False),
               sample(3, answer=None, correct=None)]  # fmt: skip
    lost = [
        {"id": "q4", "path": "v4", "type": "T", "meta": {"k": 1}},
        {"id": "q5", "path": "a.csv", "type": None, "meta": {}},
    ]
    verdicts = verdicts_of(samples, lost)
    assert [one.id for one in verdicts] == ["q0", "q1", "q2", "q3", "q4", "q5"]
    assert verdicts[4] == Verdict("q4", "v4", "T", meta={"k": 1}, asked=False)
    assert [one.hidden for one in verdicts] == [False, False, False, True, False, False]
    found = benchmark(Toy, verdicts, 100)
    assert found is not None
    assert (found["all"]["acc"]["value"], found["all"]["acc"]["n"]) == (pytest.approx(1 / 5), 5)
    assert (found["all"]["T"]["value"], found["all"]["T"]["n"]) == (pytest.approx(1 / 4), 4)
    assert (found["answered"]["acc"]["value"], found["answered"]["acc"]["n"]) == (pytest.approx(1 / 2), 2)
    assert benchmark(Dataset, verdicts, 100) is None


def test_without_public_answers_there_is_no_measure_and_the_result_file_has_every_row() -> None:
    hidden = verdicts_of([sample(0, answer=None, correct=None)], [{"id": "q1", "path": "v1", "type": "T", "meta": {}}])
    assert [(one.id, one.prediction) for one in hidden] == [("q0", 0), ("q1", None)]
    assert benchmark(Toy, hidden, 100) is None


def test_a_lost_question_whose_answer_is_not_public_changes_no_denominator() -> None:
    lost = {"path": "v1", "type": "T", "meta": {}}
    verdicts = verdicts_of([sample(0)], [{"id": "q1", **lost, "hidden": True}, {"id": "q2", **lost, "hidden": False}])
    assert [one.hidden for one in verdicts] == [False, True, False]
    found = benchmark(Toy, verdicts, 100)
    assert found is not None
    assert (found["all"]["acc"]["value"], found["all"]["acc"]["n"]) == (0.5, 2)


def test_the_span_reaches_over_the_kept_clues_that_have_times() -> None:
    clues = [{"kept": kept, "start_seconds": start, "end_seconds": end}
             for kept, start, end in ((True, 2.0, 3.0), (False, 0.0, 9.0), (True, 5.0, 6.0), (True, None, None))]  # fmt: skip
    (first, second) = verdicts_of([sample(0, clues=clues), sample(1)], [])
    assert (first.span, second.span) == ((2.0, 6.0), None)
