"""Arms of one or several seeds: against the paired bootstrap, plain Python, and planted truth."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest

from cluenet.metrics.arms import bootstrap_p, compare_arms, draw_differences
from cluenet.metrics.statistics import paired


def _right(rng: np.random.Generator, skill_S: list[float], videos: int, per_video: int = 3) -> np.ndarray:
    """[S, N] of runs whose chance of being right differs by run and by video."""
    easy_N = np.repeat(rng.normal(0, 0.15, videos), per_video)
    return (rng.random((len(skill_S), len(easy_N))) < np.array(skill_S)[:, None] + easy_N).astype(float)


def _videos(videos: int, per_video: int = 3) -> list[str]:
    return [f"v{i}" for i in range(videos) for _ in range(per_video)]


def test_one_run_each_is_the_paired_comparison() -> None:
    rng, names = np.random.default_rng(0), _videos(40)
    a_1N, b_1N = _right(rng, [0.4], 40), _right(rng, [0.6], 40)
    ours = compare_arms(a_1N, b_1N, names, resamples=1000)
    ids = [f"q{i}" for i in range(120)]
    known = paired(dict(zip(ids, a_1N[0] == 1)), dict(zip(ids, b_1N[0] == 1)), dict(zip(ids, names)), resamples=1000)
    assert ours.difference.value == pytest.approx(known.difference.value)
    assert (ours.difference.low, ours.difference.high) == pytest.approx((known.difference.low, known.difference.high))
    assert (ours.only_a, ours.only_b, ours.p_value) == (known.only_a, known.only_b, known.p_value)
    assert (ours.test, ours.accuracy_a, ours.accuracy_b) == ("mcnemar", known.accuracy_a, known.accuracy_b)
    assert ours.power.discordant == (known.only_a + known.only_b) / 120


def test_several_seeds_agree_with_drawing_seeds_and_videos_in_plain_python() -> None:
    rng, names = np.random.default_rng(1), _videos(20)
    a_SN, b_SN = _right(rng, [0.3, 0.5, 0.4], 20), _right(rng, [0.5, 0.7], 20)
    ours = compare_arms(a_SN, b_SN, names, resamples=6000)
    plain, draws = random.Random(2), []
    for _ in range(6000):
        columns = [3 * v + q for v in plain.choices(range(20), k=20) for q in range(3)]
        a, b = (fmean(right[s, i] for s in plain.choices(range(len(right)), k=len(right) - 1) for i in columns)
                for right in (a_SN, b_SN))  # fmt: skip
        draws.append(b - a)
    draws.sort()
    assert ours.difference.value == pytest.approx(b_SN.mean() - a_SN.mean())
    assert (ours.difference.low, ours.difference.high) == pytest.approx((draws[150], draws[5850]), abs=0.012)
    assert ours.accuracies_a == pytest.approx(tuple(a_SN.mean(1)))
    assert (ours.test, ours.only_a, ours.only_b) == ("bootstrap", None, None)
    below = sum(draw <= 0 for draw in draws) / 6000
    assert ours.p_value == pytest.approx(2 * below, abs=0.01)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng, names = np.random.default_rng(3), _videos(200)
    steady = compare_arms(_right(rng, [0.4] * 3, 200), _right(rng, [0.5] * 3, 200), names, resamples=1000)
    spread = compare_arms(_right(rng, [0.3, 0.4, 0.5], 200), _right(rng, [0.35, 0.5, 0.65], 200), names, resamples=1000)
    widths = [one.difference.high - one.difference.low for one in (steady, spread)]
    assert widths[1] > 2 * widths[0]
    assert spread.power.minimum_detectable > 2 * steady.power.minimum_detectable


def test_the_same_models_asked_in_two_ways_agree_with_drawing_a_seed_for_both_in_plain_python() -> None:
    """Three models that were trained very differently well, each 5 points worse when asked in the second way."""
    rng, names = np.random.default_rng(4), _videos(40)
    a_SN = _right(rng, [0.3, 0.6, 0.9], 40)
    b_SN = a_SN * (rng.random(a_SN.shape) < 0.92)
    ours = compare_arms(a_SN, b_SN, names, resamples=6000, same_models=True)
    plain, draws = random.Random(5), []
    for _ in range(6000):
        columns = [3 * v + q for v in plain.choices(range(40), k=40) for q in range(3)]
        seeds = plain.choices(range(3), k=2)
        draws.append(fmean(b_SN[s, i] - a_SN[s, i] for s in seeds for i in columns))
    draws.sort()
    assert ours.difference.value == pytest.approx(b_SN.mean() - a_SN.mean())
    assert (ours.difference.low, ours.difference.high) == pytest.approx((draws[150], draws[5850]), abs=0.004)
    apart = compare_arms(a_SN, b_SN, names, resamples=6000)
    assert ours.p_value < 0.05 < apart.p_value
    assert apart.difference.high - apart.difference.low > 4 * (ours.difference.high - ours.difference.low)


def test_intervals_cover_a_planted_difference() -> None:
    """Videos that differ, seeds that do not: 95 % intervals hold the truth about that often."""
    held = {1: 0, 3: 0}
    for trial in range(120):
        for seeds in held:
            rng = np.random.default_rng((trial, seeds))
            easy_N = np.repeat(rng.normal(0, 0.15, 60), 3)
            a_SN, b_SN = (
                (rng.random((seeds, 180)) < skill + easy_N).astype(float) for skill in (0.45, 0.55)
            )  # both arms find the same videos easy
            found = compare_arms(a_SN, b_SN, _videos(60), resamples=400)
            held[seeds] += found.difference.low <= 0.1 <= found.difference.high
    assert 106 <= held[1] <= 120
    assert 106 <= held[3] <= 120


def test_the_spread_of_seeds_is_that_of_their_mean() -> None:
    """Of right answers that differ between seeds alone, the variance is s^2 / S for each arm."""
    a_SN, b_SN = (np.repeat(right_S1, 200, axis=1) for right_S1 in ([[1.0], [1.0], [0.0]], [[1.0], [0.0]]))
    draws_R = draw_differences(a_SN, b_SN, [str(i) for i in range(200)], resamples=40_000, seed=0)
    expected = np.var([1, 1, 0], ddof=1) / 3 + np.var([1, 0], ddof=1) / 2
    assert draws_R.var() == pytest.approx(expected, rel=0.03)


def test_p_values_are_uniform_when_nothing_differs() -> None:
    p_values = []
    for trial in range(150):
        rng = np.random.default_rng((7, trial))
        a_SN, b_SN = _right(rng, [0.5] * 2, 50), _right(rng, [0.5] * 2, 50)
        p_values.append(compare_arms(a_SN, b_SN, _videos(50), resamples=300).p_value)
    assert sum(p < 0.05 for p in p_values) <= 15  # 7.5 expected; crossed resampling is rather too careful
    assert sum(p < 0.5 for p in p_values) >= 25


def test_a_bootstrap_p_value_is_never_zero() -> None:
    assert bootstrap_p(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.zeros(999)) == 1.0
    assert bootstrap_p(np.array([-1.0, 1.0, 1.0])) == 1.0


def test_the_order_of_questions_does_not_matter() -> None:
    rng, names = np.random.default_rng(5), _videos(15)
    a_SN, b_SN = _right(rng, [0.3, 0.5], 15), _right(rng, [0.5, 0.7], 15)
    order = rng.permutation(45)
    first = compare_arms(a_SN, b_SN, names, resamples=200)
    assert compare_arms(a_SN[:, order], b_SN[:, order], [names[i] for i in order], resamples=200) == first


def test_one_video_has_no_interval_and_no_questions_have_nothing() -> None:
    one = compare_arms(np.ones((2, 3)), np.zeros((2, 3)), ["v"] * 3)
    assert (one.difference.value, one.difference.low, one.p_value, one.test) == (-1.0, None, None, None)
    none = compare_arms(np.zeros((1, 0)), np.zeros((1, 0)), [])
    assert (none.difference.value, none.accuracy_a, none.p_value) == (None, None, None)
    assert not len(draw_differences(np.ones((1, 3)), np.ones((1, 3)), ["v"] * 3, resamples=10, seed=0))
