"""Holm against closed testing, power against exact enumeration and simulation."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from cluenet.metrics.inference import (
    design_effect,
    holm,
    mcnemar_detectable,
    mcnemar_power,
    normal_power,
    paired_power,
)
from cluenet.metrics.statistics import mcnemar, ratios


def _closed_testing(p_values: list[float]) -> list[float]:
    """A hypothesis is rejected when Bonferroni rejects every set that holds it; the smallest level at which that is so."""
    places = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in itertools.combinations(places, size)]
    return [
        max(min(1.0, len(chosen) * min(p_values[j] for j in chosen)) for chosen in sets if i in chosen) for i in places
    ]


@pytest.mark.parametrize("seed", range(6))
def test_holm_is_closed_testing_with_bonferroni(seed: int) -> None:
    rng = random.Random(seed)
    p_values = [rng.choice([rng.random() ** 4, 0.01, 0.5]) for _ in range(6)]
    assert holm(p_values) == pytest.approx(_closed_testing(p_values))


def test_holm_keeps_places_and_leaves_out_what_was_not_tested() -> None:
    assert holm([0.04, None, 0.01]) == [0.04, None, 0.02]
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def _exact_power(n: int, only_a: float, only_b: float) -> float:
    """Chance that the exact test has p < 0.05, over every number of discordant questions and every way they split."""
    discordant, total = only_a + only_b, 0.0
    for d in range(1, n + 1):
        chance_of_d = math.comb(n, d) * discordant**d * (1 - discordant) ** (n - d)
        for k in range(d + 1):
            if chance_of_d > 1e-12 and mcnemar(k, d - k) < 0.05:
                share = only_a / discordant
                total += chance_of_d * math.comb(d, k) * share**k * (1 - share) ** (d - k)
    return total


@pytest.mark.parametrize(("only_a", "only_b"), [(0.05, 0.2), (0.1, 0.25)])
def test_power_is_near_that_of_the_exact_test(only_a: float, only_b: float) -> None:
    ours = mcnemar_power(only_b - only_a, only_a + only_b, 120)
    exact = _exact_power(120, only_a, only_b)
    assert 0.5 < exact < 0.99
    assert exact < ours < exact + 0.06  # the formula is the normal test's, the exact test is a little more careful


@pytest.mark.parametrize(("discordant", "n"), [(0.1, 200), (0.3, 1000), (0.45, 80)])
def test_the_detectable_difference_has_80_percent_power(discordant: float, n: int) -> None:
    detectable = mcnemar_detectable(discordant, n)
    assert detectable is not None
    assert mcnemar_power(detectable, discordant, n) == pytest.approx(0.8)


def test_a_worked_example_and_what_is_out_of_reach() -> None:
    """Connor's equation solved for n: (1.96 sqrt(.3) + 0.8416 sqrt(.3 - .1^2))^2 / .1^2 = 232.8 questions."""
    assert mcnemar_power(0.1, 0.3, 232.76) == pytest.approx(0.8, abs=1e-3)
    assert mcnemar_detectable(0.02, 100) is None  # two discordant questions can never be significant
    assert mcnemar_detectable(0.5, 2) is None
    assert mcnemar_power(1.0, 1.0, 100) == 1.0  # every question points the same way


def _correlated(rng: np.random.Generator, videos: int, per_video: int) -> tuple[np.ndarray, list[str]]:
    lean_V = rng.choice([-0.6, 0.6], videos)
    differences = np.sign(rng.random((videos, per_video)) - 0.5 + lean_V[:, None] / 2) * (
        rng.random((videos, per_video)) < 0.4
    )
    return differences.ravel(), [f"v{i}" for i in range(videos) for _ in range(per_video)]


def test_design_effect_is_the_ratio_of_variances() -> None:
    rng = np.random.default_rng(0)
    values_N, videos = _correlated(rng, 200, 6)
    ones = np.ones((len(values_N), 1))
    (clustered,) = ratios(videos, values_N[:, None], ones, resamples=20_000)
    (independent,) = ratios([str(i) for i in range(len(videos))], values_N[:, None], ones, resamples=20_000)
    widths = [one.high - one.low for one in (clustered, independent)]
    assert design_effect(values_N, videos) == pytest.approx((widths[0] / widths[1]) ** 2, rel=0.08)
    assert design_effect(values_N, videos) > 1.3
    assert design_effect(values_N, [str(i) for i in range(len(videos))]) == pytest.approx(1.0, abs=0.01)
    assert design_effect(values_N, ["one"] * len(videos)) == 1.0


def test_questions_that_share_videos_detect_less() -> None:
    values_N, videos = _correlated(np.random.default_rng(1), 100, 8)
    shared, apart = paired_power(values_N, videos), paired_power(values_N, [str(i) for i in range(len(videos))])
    assert shared.minimum_detectable > 1.1 * apart.minimum_detectable
    assert (shared.discordant, apart.discordant) == (float((values_N != 0).mean()),) * 2


def test_runs_that_agree_everywhere_have_no_power_to_state() -> None:
    found = paired_power(np.zeros(5), list("abcde"))
    assert (found.observed, found.minimum_detectable, found.discordant) == (None, None, 0.0)
    assert paired_power(np.zeros(0), []).discordant is None


def test_normal_power_by_simulation() -> None:
    rng, error = np.random.default_rng(0), 0.02
    power = normal_power(0.05, error)
    drawn = np.abs(rng.normal(0.05, error, 100_000)) / error > 1.959964
    assert power.observed == pytest.approx(drawn.mean(), abs=0.005)
    assert normal_power(power.minimum_detectable, error).observed == pytest.approx(0.8, abs=1e-4)
    assert normal_power(0.1, 0.0).observed is None
