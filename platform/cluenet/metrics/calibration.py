"""Does the model know when it is right? Calibration of its probabilities, and what it gains by abstaining.

The confidence of an answer is its probability among the options. Answers of equal confidence count the same whatever their
order: bins never split them, and risks are expectations over their orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import digamma

from cluenet.metrics.statistics import RESAMPLES, Interval, bootstrap_weights, intervals, ratios

BINS = 15
COVERAGES = tuple(round(0.1 * step, 1) for step in range(1, 11))
SIMULATIONS = 1000


def calibration(
    probabilities_N: Sequence[Sequence[float]], predictions_N: Sequence[int], answers_N: Sequence[int],
    videos_N: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Of N questions, each with a probability per option.

    ece             expected calibration error, see `expected_calibration_error`
    overconfidence  mean confidence - accuracy
    brier           sum over options of (probability - right)^2, in 0..2 (Brier 1950, Monthly Weather Review 78)
    aurc            area under the risk-coverage curve (Geifman and El-Yaniv 2017, arXiv 1705.08500)
    excess_aurc     the same minus that of a ranking with every right answer first (Geifman et al. 2019, arXiv 1805.08206)
    risk_coverage   share of wrong answers among the most confident 10 %, 20 % .. 100 %
    """
    confidence_N = np.array([row[place] for row, place in zip(probabilities_N, predictions_N)], dtype=float)
    right_N = np.asarray(predictions_N) == np.asarray(answers_N)
    brier_N = np.array([_brier(row, answer) for row, answer in zip(probabilities_N, answers_N)])
    means_N2 = np.stack([confidence_N - right_N, brier_N], axis=1)
    overconfidence, brier = ratios(videos_N, means_N2, np.ones_like(means_N2), resamples=resamples, seed=seed)
    aurc, excess, *risks = risk_coverage(confidence_N, right_N, videos_N, resamples=resamples, seed=seed)
    return {
        "ece": expected_calibration_error(confidence_N, right_N, seed=seed),
        "overconfidence": overconfidence.to_dict(), "brier": brier.to_dict(), "aurc": aurc.to_dict(),
        "excess_aurc": excess.to_dict(),
        "risk_coverage": [{"coverage": share, **risk.to_dict()} for share, risk in zip(COVERAGES, risks)],
    }  # fmt: skip


def _brier(probabilities: Sequence[float], answer: int) -> float:
    return sum((value - (place == answer)) ** 2 for place, value in enumerate(probabilities))


# ------------------------------------------------------------------------------------------------------- binned


def expected_calibration_error(confidence_N: np.ndarray, right_N: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Mean over questions of |accuracy - confidence| of their bin, over at most 15 bins of equal mass (quantiles of the
    confidences: Naeini et al. 2015, AAAI; equal mass: Nixon et al. 2019, arXiv 1904.01685).

    A sum of absolute values is above 0 for a perfectly calibrated model too, the more the fewer the questions, and more so
    in every resample; so instead of an interval, `if_calibrated` says what value the same confidences would give a model
    whose every answer is right with that probability: its mean and 95th percentile over simulations (consistency
    resampling: Bröcker and Smith 2007, Weather and Forecasting 22). `bins`: {confidence, accuracy, n} of each.
    """
    bin_N = equal_mass_bins(confidence_N, min(BINS, len(confidence_N)))
    rng, order = np.random.default_rng(seed), np.argsort(confidence_N)
    sorted_N, sorted_bin_N = confidence_N[order], bin_N[order]
    noise_R = np.array([
        _gap(sorted_N, rng.random(len(sorted_N)) < sorted_N, sorted_bin_N) for _ in range(SIMULATIONS)
    ])  # fmt: skip
    if_calibrated = {"mean": float(noise_R.mean()), "high": float(np.quantile(noise_R, 0.95))}
    bins = [
        {"confidence": float(confidence_N[of].mean()), "accuracy": float(right_N[of].mean()), "n": int(of.sum())}
        for of in (bin_N == place for place in np.unique(bin_N))
    ]
    return {
        "value": _gap(confidence_N, right_N, bin_N),
        "n": len(confidence_N),
        "if_calibrated": if_calibrated,
        "bins": bins,
    }


def equal_mass_bins(confidence_N: np.ndarray, bins: int) -> np.ndarray:
    """[N] the bin of each: edges are quantiles, an edge belongs to the bin below it, equal values share a bin."""
    edges = np.quantile(confidence_N, np.linspace(0, 1, bins + 1)[1:-1])
    found_N: np.ndarray = np.searchsorted(edges, confidence_N)
    return found_N


def _gap(confidence_N: np.ndarray, right_N: np.ndarray, bin_N: np.ndarray) -> float:
    return float(np.abs(np.bincount(bin_N, weights=right_N - confidence_N)).sum() / len(confidence_N))


# ------------------------------------------------------------------------------------------------------- ranked


def risk_coverage(
    confidence_N: np.ndarray, right_N: np.ndarray, videos_N: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """AURC, its excess over the best possible ranking, and the risk at each of COVERAGES, with intervals by video."""
    wrong_N = 1.0 - right_N

    def statistic(weights_RN: np.ndarray) -> np.ndarray:
        curve, best = _curve(confidence_N, wrong_N, weights_RN), _curve(-wrong_N, wrong_N, weights_RN)
        area_R = area(*curve)
        return np.concatenate([np.stack([area_R, area_R - area(*best)], 1), _risks(*curve)], axis=1)

    found_3J = bootstrap_weights(videos_N, statistic, resamples=resamples, seed=seed)
    return intervals(found_3J, [len(wrong_N)] * found_3J.shape[1])


def _curve(confidence_N: np.ndarray, wrong_N: np.ndarray, weights_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[R, G + 1] answers and wrong answers that are at least as confident as each of the G values of confidence."""
    levels, group_N = np.unique(-confidence_N, return_inverse=True)
    order = np.argsort(group_N, kind="stable")
    starts = np.searchsorted(group_N[order], np.arange(len(levels)))
    sums = [np.add.reduceat(values[:, order], starts, axis=1) for values in (weights_RN, weights_RN * wrong_N)]
    taken, wrong = (np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0))) for values in sums)
    return taken, wrong


def area(taken_RG: np.ndarray, wrong_RG: np.ndarray) -> np.ndarray:
    """[R] mean over k = 1..n of the share of wrong answers among the k most confident, in closed form for equal ones.

    In a group with a share r of wrong answers, after C answers with E wrong ones, the expected risk at C + j is
    (E + r j) / (C + j) = r + (E - r C) / (C + j), and the sum of 1 / (C + j) over j = 1..m is digamma(C+m+1) - digamma(C+1).
    """
    before_RG, wrong_before_RG = taken_RG[:, :-1], wrong_RG[:, :-1]
    size_RG, bad_RG = np.diff(taken_RG), np.diff(wrong_RG)
    share_RG = bad_RG / np.maximum(size_RG, 1)
    harmonic_RG = np.diff(digamma(taken_RG + 1))
    total_R = (bad_RG + (wrong_before_RG - share_RG * before_RG) * harmonic_RG).sum(1)
    mean_R: np.ndarray = total_R / taken_RG[:, -1]
    return mean_R


def _risks(taken_RG: np.ndarray, wrong_RG: np.ndarray) -> np.ndarray:
    """[R, len(COVERAGES)] risks; a coverage that ends within a group of equal confidence takes its share of it."""
    wanted_RC = taken_RG[:, -1:] * np.array(COVERAGES)
    rows = zip(wanted_RC, taken_RG, wrong_RG)
    return np.stack([np.interp(wanted, taken, wrong) / wanted for wanted, taken, wrong in rows])
