"""Calibration against scikit-learn and plain Python."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from cluenet.metrics.calibration import (
    BINS,
    COVERAGES,
    area,
    calibration,
    equal_mass_bins,
    expected_calibration_error,
    risk_coverage,
)


def _answers(count: int, options: int = 4, *, seed: int = 0, sharper: float = 1.0):
    """Probabilities that are true when `sharper` is 1: [N, options], predictions, answers, videos of 4 questions each."""
    rng = np.random.default_rng(seed)
    true_NA = rng.dirichlet(np.ones(options), count)
    stated_NA = true_NA**sharper / (true_NA**sharper).sum(1, keepdims=True)
    answers = [int(rng.choice(options, p=row)) for row in true_NA]
    return stated_NA, stated_NA.argmax(1).tolist(), answers, [f"v{i // 4}" for i in range(count)]


def test_brier_is_scikit_learns_for_several_classes() -> None:
    probabilities_NA, predictions, answers, videos = _answers(200)
    ours = calibration(probabilities_NA.tolist(), predictions, answers, videos, resamples=100)["brier"]
    theirs = brier_score_loss(answers, probabilities_NA, labels=[0, 1, 2, 3], scale_by_half=False)
    assert ours["value"] == pytest.approx(theirs)
    assert ours["low"] < ours["value"] < ours["high"]


def test_questions_may_have_different_numbers_of_options() -> None:
    found = calibration([[0.5, 0.5], [0.2, 0.2, 0.6]], [0, 2], [0, 0], ["a", "b"], resamples=100)
    assert found["brier"]["value"] == pytest.approx((0.25 + 0.25 + 0.64 + 0.04 + 0.36) / 2)
    assert found["overconfidence"]["value"] == pytest.approx((0.5 + 0.6) / 2 - 0.5)


@pytest.mark.parametrize("count", [7, 40, 600])
def test_bins_are_scikit_learns_quantile_bins(count: int) -> None:
    probabilities_NA, predictions, answers, _ = _answers(count, seed=count)
    confidence_N = probabilities_NA.max(1)
    right_N = np.array(predictions) == np.array(answers)
    found = expected_calibration_error(confidence_N, right_N)
    accuracies, confidences = calibration_curve(
        right_N, confidence_N, n_bins=min(BINS, count), strategy="quantile", pos_label=True
    )
    assert [one["accuracy"] for one in found["bins"]] == pytest.approx(accuracies.tolist())
    assert [one["confidence"] for one in found["bins"]] == pytest.approx(confidences.tolist())
    sizes = [one["n"] for one in found["bins"]]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1  # of equal mass
    by_hand = sum(n * abs(a - c) for n, a, c in zip(sizes, accuracies, confidences)) / count
    assert found["value"] == pytest.approx(by_hand)


def test_equal_confidences_share_a_bin_and_their_order_does_not_matter() -> None:
    confidence_N = np.array([0.25] * 40 + [0.9] * 2)
    right_N = np.array([True] * 10 + [False] * 30 + [True] * 2)
    assert len(set(equal_mass_bins(confidence_N, BINS)[:40].tolist())) == 1
    assert expected_calibration_error(confidence_N, right_N)["value"] == pytest.approx(2 * 0.1 / 42)
    order = np.random.default_rng(0).permutation(42)
    shuffled = expected_calibration_error(confidence_N[order], right_N[order])
    assert shuffled["value"] == pytest.approx(2 * 0.1 / 42)


def test_a_calibrated_model_is_within_its_noise_and_an_overconfident_one_is_not() -> None:
    within = []
    for seed in range(40):
        probabilities_NA, predictions, answers, _ = _answers(300, seed=seed)
        right_N = np.array(predictions) == np.array(answers)
        found = expected_calibration_error(probabilities_NA.max(1), right_N, seed=seed)
        within.append(found["value"] <= found["if_calibrated"]["high"])
        assert 0 < found["if_calibrated"]["mean"] < found["if_calibrated"]["high"]
    assert 34 <= sum(within) <= 40  # 95 % of 40
    probabilities_NA, predictions, answers, videos = _answers(300, sharper=3.0)
    sure = calibration(probabilities_NA.tolist(), predictions, answers, videos, resamples=200)
    assert sure["ece"]["value"] > 2 * sure["ece"]["if_calibrated"]["high"]
    assert sure["overconfidence"]["low"] > 0.05


def _plain_aurc(confidences: list[float], wrong: list[int]) -> float:
    """Mean over coverages of the risk, averaged over every order that confidences allow."""
    areas = []
    for order in itertools.permutations(range(len(wrong))):
        ranked = [confidences[i] for i in order]
        if ranked == sorted(ranked, reverse=True):
            areas.append(fmean(fmean(wrong[i] for i in order[: k + 1]) for k in range(len(order))))
    return fmean(areas)


@pytest.mark.parametrize("seed", range(5))
def test_aurc_is_the_mean_risk_over_every_order_of_equal_confidences(seed: int) -> None:
    rng = random.Random(seed)
    confidences = [rng.choice([0.3, 0.5, 0.8]) for _ in range(7)]
    right = [rng.random() < 0.5 for _ in range(7)]
    aurc, excess, *_ = risk_coverage(np.array(confidences), np.array(right), ["v"] * 7)
    wrong = [int(not value) for value in right]
    assert aurc.value == pytest.approx(_plain_aurc(confidences, wrong))
    assert excess.value == pytest.approx(aurc.value - _plain_aurc([float(value) for value in right], wrong))
    assert aurc.low is None  # one video


def test_risks_are_error_rates_of_the_most_confident() -> None:
    confidence_N = np.linspace(1.0, 0.1, 20)
    right_N = np.arange(20) % 3 != 2
    _, _, *risks = risk_coverage(confidence_N, right_N, [str(i) for i in range(20)], resamples=100)
    for share, risk in zip(COVERAGES, risks):
        taken = round(20 * share)
        assert risk.value == pytest.approx(float((~right_N[:taken]).mean()))
        assert risk.low <= risk.value <= risk.high
    flat = risk_coverage(np.full(20, 0.5), right_N, ["v"] * 20)
    assert {round(one.value, 9) for one in flat[2:]} == {0.3}  # no information: the error rate at every coverage


def test_area_of_a_question_drawn_twice_is_that_of_two_equal_questions() -> None:
    """The bootstrap weighs questions; plain Python repeats them."""
    confidences, wrong, weights = [0.9, 0.7, 0.6], [0, 1, 0], [2, 1, 3]
    taken = np.pad(np.cumsum(weights), (1, 0))[None].astype(float)
    errors = np.pad(np.cumsum(np.multiply(wrong, weights)), (1, 0))[None].astype(float)
    repeated = [(c, w) for c, w, n in zip(confidences, wrong, weights) for _ in range(n)]
    expected = _plain_aurc([c for c, _ in repeated], [w for _, w in repeated])
    assert area(taken, errors)[0] == pytest.approx(expected)


def test_intervals_of_aurc_agree_with_resampling_videos_in_plain_python() -> None:
    probabilities_NA, predictions, answers, videos = _answers(80, seed=4)
    confidence_N, right_N = probabilities_NA.max(1), np.array(predictions) == np.array(answers)
    aurc = risk_coverage(confidence_N, right_N, videos, resamples=3000)[0]
    rng, names, draws = random.Random(0), sorted(set(videos)), []
    for _ in range(3000):
        rows = [i for name in rng.choices(names, k=len(names)) for i in range(80) if videos[i] == name]
        rows.sort(key=lambda i: -confidence_N[i])
        errors = np.cumsum(~right_N[rows])
        draws.append(float((errors / np.arange(1, len(rows) + 1)).mean()))
    draws.sort()
    assert (aurc.low, aurc.high) == pytest.approx((draws[75], draws[2925]), abs=0.02)


def test_the_order_of_questions_does_not_matter() -> None:
    probabilities_NA, predictions, answers, videos = _answers(60)
    order = np.random.default_rng(1).permutation(60).tolist()
    first = calibration(probabilities_NA.tolist(), predictions, answers, videos, resamples=100)
    second = calibration(
        probabilities_NA[order].tolist(), *([values[i] for i in order] for values in (predictions, answers, videos)),
        resamples=100,
    )  # fmt: skip
    assert second["aurc"] == pytest.approx(first["aurc"])
    assert second["ece"]["value"] == pytest.approx(first["ece"]["value"])
    assert second["ece"]["if_calibrated"] == pytest.approx(first["ece"]["if_calibrated"])
