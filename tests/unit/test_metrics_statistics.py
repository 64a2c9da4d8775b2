"""Intervals against scipy and against plain Python; the paired test against counted cases."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from cluenet.errors import DataError
from cluenet.metrics.statistics import bootstrap, check_same_questions, mcnemar, paired, ratio, ratios, sums_by_video


def _mean(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[..., :1], sums[..., 1:])


def test_one_question_per_video_agrees_with_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    right_N = (rng.random(120) < 0.6).astype(float)
    videos = [f"v{i}" for i in range(120)]
    estimate, low, high = bootstrap(videos, np.stack([right_N, np.ones(120)], 1), _mean, resamples=20_000)[:, 0]
    scipys = stats.bootstrap((right_N,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert estimate == pytest.approx(right_N.mean())
    assert (low, high) == pytest.approx(tuple(scipys), abs=0.006)


def test_several_questions_per_video_agree_with_scipys_paired_bootstrap_of_sums() -> None:
    rng = np.random.default_rng(3)
    counts_V = rng.integers(1, 9, 60)
    skill_V = rng.random(60)
    rights = [rng.random(count) < skill for count, skill in zip(counts_V, skill_V)]
    videos = [f"v{i}" for i, count in enumerate(counts_V) for _ in range(count)]
    right_N = np.concatenate(rights).astype(float)
    (ours,) = ratios(videos, right_N[:, None], np.ones((len(right_N), 1)), resamples=20_000)
    sums_V = np.array([right.sum() for right in rights], dtype=float)
    scipys = stats.bootstrap(
        (sums_V, counts_V.astype(float)), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, n_resamples=20_000,
        method="percentile", vectorized=True, rng=1,
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx(tuple(scipys), abs=0.01)
    by_question = stats.bootstrap(
        (right_N,), np.mean, n_resamples=5_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.high - ours.low > 1.2 * (by_question.high - by_question.low)  # dependent questions say less


def test_agrees_with_resampling_videos_in_plain_python() -> None:
    rng = random.Random(5)
    groups = {f"v{i}": [rng.random() < 0.5 for _ in range(rng.randint(1, 4))] for i in range(25)}
    draws = []
    for _ in range(8000):
        drawn = [right for name in rng.choices(list(groups), k=len(groups)) for right in groups[name]]
        draws.append(fmean(drawn))
    draws.sort()
    videos = [name for name, rights in groups.items() for _ in rights]
    flat = np.array([[float(right)] for rights in groups.values() for right in rights])
    (ours,) = ratios(videos, flat, np.ones_like(flat), resamples=8000)
    assert (ours.low, ours.high) == pytest.approx((draws[200], draws[7800]), abs=0.02)


def test_the_order_of_questions_does_not_matter_and_a_seed_repeats() -> None:
    rng = np.random.default_rng(1)
    values = (rng.random((50, 1)) < 0.5).astype(float)
    videos = [f"v{i % 7}" for i in range(50)]
    order = rng.permutation(50)
    first = ratios(videos, values, np.ones((50, 1)), resamples=200)
    shuffled = ratios([videos[i] for i in order], values[order], np.ones((50, 1)), resamples=200)
    assert first == shuffled
    assert first != ratios(videos, values, np.ones((50, 1)), resamples=200, seed=1)


def test_many_videos_are_drawn_in_chunks_with_the_same_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (np.arange(40) % 2).astype(float)[:, None]
    videos = [str(i) for i in range(40)]
    whole = ratios(videos, values, np.ones((40, 1)), resamples=999)
    monkeypatch.setattr("cluenet.metrics.statistics.DRAWS_AT_ONCE", 400)
    chunked = ratios(videos, values, np.ones((40, 1)), resamples=999)
    assert chunked == whole  # the generator's stream does not depend on the chunks


def test_nothing_observed_and_one_video_have_no_interval() -> None:
    (nothing,) = ratios(["a", "b"], np.zeros((2, 1)), np.zeros((2, 1)), resamples=100)
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (None, None, None, 0)
    (one,) = ratios(["a", "a"], np.array([[1.0], [0.0]]), np.ones((2, 1)), resamples=100)
    assert (one.value, one.low, one.high, one.n) == (0.5, None, None, 2)
    (none,) = ratios([], np.zeros((0, 1)), np.zeros((0, 1)), resamples=100)
    assert none.value is None


def test_a_column_that_some_resamples_miss_still_has_an_interval() -> None:
    denominators = np.array([[1.0]] + [[0.0]] * 9)
    (rare,) = ratios([str(i) for i in range(10)], denominators, denominators, resamples=300)
    assert (rare.value, rare.low, rare.high) == (1.0, 1.0, 1.0)


def test_sums_by_video_are_in_the_order_of_names() -> None:
    sums = sums_by_video(["b", "a", "b"], np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]))
    assert sums.tolist() == [[2, 20], [5, 50]]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 5), (12, 3), (7, 7)])
def test_mcnemar_is_the_two_sided_binomial_test(only_a: int, only_b: int) -> None:
    total, tail = only_a + only_b, min(only_a, only_b)
    below = sum(_choose(total, k) for k in range(tail + 1)) / 2**total
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * below))


def _choose(n: int, k: int) -> int:
    return 1 if k == 0 else _choose(n, k - 1) * (n - k + 1) // k


def test_paired_difference_by_hand() -> None:
    a = {"q0": True, "q1": False, "q2": False, "q3": True}
    b = {"q3": True, "q2": True, "q1": True, "q0": False}
    result = paired(a, b, {"q0": "v0", "q1": "v0", "q2": "v1", "q3": "v2"}, resamples=500)
    assert (result.accuracy_a, result.accuracy_b, result.difference.value) == (0.5, 0.75, 0.25)
    assert (result.only_a, result.only_b, result.p_value) == (1, 2, 1.0)
    assert result.difference.low == 0
    assert result.difference.high is not None
    assert result.difference.high <= 1


def test_pairing_is_narrower_than_two_separate_runs() -> None:
    rng = np.random.default_rng(2)
    easy = rng.random(200)
    a = {f"q{i}": bool(easy[i] < 0.5) for i in range(200)}
    b = {f"q{i}": bool(easy[i] < 0.55) for i in range(200)}
    videos = {key: key for key in a}
    difference = paired(a, b, videos).difference
    alone = [stats.sem([float(right) for right in run.values()]) for run in (a, b)]
    assert difference.low is not None
    assert difference.high is not None
    assert difference.high - difference.low < 0.5 * 2 * 1.96 * float(np.hypot(*alone))


def test_different_questions_are_refused_and_named() -> None:
    with pytest.raises(DataError, match=r"1 are only in the first, 2 only in the second, such as q1, q2, q3"):
        paired({"q0": True, "q1": True}, {"q0": True, "q2": True, "q3": False}, {"q0": "v"})
    check_same_questions({"q0": 1}, {"q0": 2})
