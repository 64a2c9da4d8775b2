"""Two arms on the same questions; an arm is one run, or several that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cluenet.metrics.inference import Power, normal_power, paired_power
from cluenet.metrics.statistics import Interval, draws_of_videos, mcnemar, sums_by_video

RESAMPLES = 10_000
"""More than an interval needs: the smallest p-value of the bootstrap is 2 / (RESAMPLES + 1), before Holm."""


@dataclass(frozen=True)
class Comparison:
    """Arm B against arm A. `difference` = mean accuracy over B's runs - mean accuracy over A's runs.

    accuracies_a, accuracies_b: of each run. test: `mcnemar` (exact, two-sided) for one run each, `bootstrap` (two-sided,
    twice the smaller tail) for several, None without two videos. only_a, only_b: questions that one run alone has right,
    None with several runs.
    """

    accuracies_a: tuple[float, ...]
    accuracies_b: tuple[float, ...]
    difference: Interval
    only_a: int | None
    only_b: int | None
    test: str | None
    p_value: float | None
    power: Power

    @property
    def accuracy_a(self) -> float | None:
        return _mean(self.accuracies_a)

    @property
    def accuracy_b(self) -> float | None:
        return _mean(self.accuracies_b)

    def to_dict(self) -> dict[str, Any]:
        return {"accuracy_a": self.accuracy_a, "accuracy_b": self.accuracy_b, **asdict(self)}


def compare_arms(
    right_a_SN: np.ndarray,
    right_b_SN: np.ndarray,
    videos_N: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    same_models: bool = False,
) -> Comparison:
    """Rows are an arm's runs, columns the N questions of both arms. The order of questions does not matter. `same_models`: row by
    row both arms are one model, asked in two ways."""
    a_SN, b_SN = (np.asarray(right, dtype=float) for right in (right_a_SN, right_b_SN))
    only_a, only_b = _discordant(a_SN, b_SN)
    if not len(videos_N):
        return Comparison((), (), Interval(None, None, None, 0), only_a, only_b, None, None, Power(None, None))
    draws_R = draw_differences(a_SN, b_SN, videos_N, resamples=resamples, seed=seed, same_models=same_models)
    low, high = map(float, np.quantile(draws_R, (0.025, 0.975))) if len(draws_R) else (None, None)
    difference = Interval(float(b_SN.mean() - a_SN.mean()), low, high, len(videos_N))
    of_a, of_b = (tuple(map(float, right_SN.mean(1))) for right_SN in (a_SN, b_SN))
    return Comparison(of_a, of_b, difference, only_a, only_b, *_test(a_SN, b_SN, videos_N, draws_R))


def _test(
    a_SN: np.ndarray, b_SN: np.ndarray, videos_N: Sequence[str], draws_R: np.ndarray
) -> tuple[str | None, float | None, Power]:
    only_a, only_b = _discordant(a_SN, b_SN)
    if only_a is not None and only_b is not None:
        return "mcnemar", mcnemar(only_a, only_b), paired_power((b_SN - a_SN)[0], videos_N)
    if not len(draws_R):
        return None, None, Power(None, None)
    power = normal_power(float(b_SN.mean() - a_SN.mean()), float(draws_R.std(ddof=1)))
    return "bootstrap", bootstrap_p(draws_R), power


def mean_accuracy(
    right_SN: np.ndarray, videos_N: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Of an arm by itself: mean over its runs, drawn as in `draw_differences` against an arm that is never right."""
    right_SN = np.asarray(right_SN, dtype=float)
    if not right_SN.size:
        return Interval(None, None, None, 0)
    draws_R = draw_differences(np.zeros((1, right_SN.shape[1])), right_SN, videos_N, resamples=resamples, seed=seed)
    low, high = map(float, np.quantile(draws_R, (0.025, 0.975))) if len(draws_R) else (None, None)
    return Interval(float(right_SN.mean()), low, high, right_SN.shape[1])


def draw_differences(
    a_SN: np.ndarray, b_SN: np.ndarray, videos_N: Sequence[str], *, resamples: int, seed: int, same_models: bool = False
) -> np.ndarray:
    """[R] differences between resampled arms; empty with fewer than two videos.

    Every run answers about every video, so seeds and videos are crossed and drawn independently, videos once for both arms
    (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1). With one run per arm this is the paired bootstrap
    by video. The only seed of an arm is always drawn: such an interval does not know how much seeds differ. Of the `same_models`
    a seed is drawn once for both arms as well: how well a model was trained is in both and cancels out.
    """
    sums_VM = sums_by_video(videos_N, np.concatenate([a_SN, b_SN, np.ones((1, a_SN.shape[1]))]).T)
    if len(sums_VM) < 2:
        return np.empty(0)
    rng = np.random.default_rng((seed, 1))  # its own stream: videos are drawn as everywhere
    draws = []
    for weights_RV in draws_of_videos(len(sums_VM), resamples, seed):
        rights_RM = weights_RV @ sums_VM
        of_a_RS, of_b_RS = np.split(rights_RM[:, :-1] / rights_RM[:, -1:], [len(a_SN)], axis=1)
        if same_models:
            draws.append(_resampled_mean(of_b_RS - of_a_RS, rng))
        else:
            draws.append(_resampled_mean(of_b_RS, rng) - _resampled_mean(of_a_RS, rng))
    return np.concatenate(draws)


def _resampled_mean(accuracies_RS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One seed fewer is drawn than there are: as many would spread too little, by (S - 1) / S of the variance (Rao and Wu
    1988, Journal of the American Statistical Association 83)."""
    resamples, seeds = accuracies_RS.shape
    drawn = max(1, seeds - 1)
    weights_RS = rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=resamples) / drawn
    mean_R: np.ndarray = (weights_RS * accuracies_RS).sum(1)
    return mean_R


def bootstrap_p(draws_R: np.ndarray) -> float:
    """Two-sided p-value of no difference: twice the smaller share of draws on either side of 0, never 0 itself (Davison
    and Hinkley 1997, section 4.4)."""
    tail = min(int((draws_R <= 0).sum()), int((draws_R >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(draws_R) + 1))


def _discordant(a_SN: np.ndarray, b_SN: np.ndarray) -> tuple[int | None, int | None]:
    if not len(a_SN) == len(b_SN) == 1:
        return None, None
    return int((a_SN > b_SN).sum()), int((b_SN > a_SN).sum())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
