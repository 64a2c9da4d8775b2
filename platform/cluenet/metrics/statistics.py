"""Uncertainty: bootstrap intervals by video, and paired tests between two runs on the same questions.

Questions about one video are not independent, so videos are resampled, never questions (cluster bootstrap; Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Intervals are percentile intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from cluenet.errors import DataError

RESAMPLES = 1000
DRAWS_AT_ONCE = 4_000_000
"""Bounds memory: so many drawn videos are held at a time."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Sums over videos [..., M] -> estimates [..., J]; NaN where there is nothing to estimate."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. `n`: observations behind it. None: not defined (nothing observed, or one video)."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bootstrap(
    videos: Sequence[str], values_NM: np.ndarray, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0,
    level: float = 0.95,
) -> np.ndarray:  # fmt: skip
    """[3, J]: estimate, lower and upper end of each statistic. `videos`: of every row of `values_NM`.

    All statistics see the same resamples, so that differences between them are paired. The order of rows does not matter.
    """
    estimate_J, draws_RJ = bootstrap_draws(videos, values_NM, statistic, resamples=resamples, seed=seed)
    return with_ends(estimate_J, draws_RJ, level)


def bootstrap_draws(
    videos: Sequence[str], values_NM: np.ndarray, statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The estimate [J] and what every resample gives [R, J]; no resample (R = 0) of fewer than two videos."""
    sums_VM = sums_by_video(videos, values_NM)
    estimate_J = statistic(sums_VM.sum(0))
    if len(sums_VM) < 2:
        return estimate_J, np.empty((0, len(estimate_J)))
    draws = (statistic(weights @ sums_VM) for weights in draws_of_videos(len(sums_VM), resamples, seed))
    return estimate_J, np.concatenate(list(draws))


def bootstrap_weights(
    videos: Sequence[str], statistic: Statistic, *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> np.ndarray:
    """`bootstrap`, on the same resamples, of what is no function of sums, such as a ranking.

    `statistic`: how often each of the N rows counts [R, N] -> estimates [R, J].
    """
    names, index_N = np.unique(np.asarray(videos, dtype=object).astype(str), return_inverse=True)
    estimate_J = statistic(np.ones((1, len(index_N))))[0]
    if len(names) < 2:
        return np.stack([estimate_J, np.full_like(estimate_J, np.nan), np.full_like(estimate_J, np.nan)])
    draws = draws_of_videos(len(names), resamples, seed, width=len(index_N))
    return with_ends(estimate_J, np.concatenate([statistic(weights[:, index_N]) for weights in draws]), level)


def with_ends(estimate_J: np.ndarray, draws_RJ: np.ndarray, level: float = 0.95) -> np.ndarray:
    """[3, J]: the estimates and the ends of their percentile intervals; NaN where no resample gives one."""
    tail = (1 - level) / 2
    return np.stack([estimate_J, *(_quantile(draws_RJ, share) for share in (tail, 1 - tail))])


def sums_by_video(videos: Sequence[str], values_NM: np.ndarray) -> np.ndarray:
    """[V, M] column sums of each video's rows, videos in the order of their names."""
    names, index_N = np.unique(np.asarray(videos, dtype=object).astype(str), return_inverse=True)
    sums_VM = np.zeros((len(names), values_NM.shape[1]))
    np.add.at(sums_VM, index_N, values_NM)
    return sums_VM


def draws_of_videos(count: int, resamples: int, seed: int, *, width: int = 0) -> Iterator[np.ndarray]:
    """How often each of `count` videos is drawn, [some, V] at a time: V draws with replacement are a multinomial draw.

    `width`: columns that the caller makes of a row, where they are more than its videos.
    """
    rng = np.random.default_rng(seed)
    step = max(1, DRAWS_AT_ONCE // max(count, width))
    for start in range(0, resamples, step):
        yield rng.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - start)).astype(float)


def _quantile(draws_RJ: np.ndarray, share: float) -> np.ndarray:
    """Of each column without its NaNs: a resample may miss every video of a rare question type."""
    columns = (column[~np.isnan(column)] for column in draws_RJ.T)
    return np.array([np.quantile(column, share) if len(column) else np.nan for column in columns])


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Elementwise, NaN where the denominator is 0."""
    safe = np.where(denominators == 0, 1.0, denominators)
    return np.where(denominators == 0, np.nan, numerators / safe)


def ratios(
    videos: Sequence[str], numerators_NM: np.ndarray, denominators_NM: np.ndarray, *, resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:  # fmt: skip
    """Interval of sum(numerators) / sum(denominators) for every column; `n` is the denominator's sum."""
    columns = numerators_NM.shape[1]
    values_NM = np.concatenate([numerators_NM, denominators_NM], axis=1).astype(float)
    found_3J = bootstrap(
        videos, values_NM, lambda sums: ratio(sums[..., :columns], sums[..., columns:]), resamples=resamples, seed=seed
    )
    return intervals(found_3J, denominators_NM.sum(0))


def intervals(found_3J: np.ndarray, counts_J: Sequence[float] | np.ndarray) -> list[Interval]:
    """The result of `bootstrap` as records."""
    rows = [[None if np.isnan(value) else float(value) for value in column] for column in found_3J.T]
    return [Interval(value, low, high, int(n)) for (value, low, high), n in zip(rows, counts_J)]


@dataclass(frozen=True)
class Paired:
    """Run B against run A on the same questions. `difference` = accuracy of B - accuracy of A.

    only_a, only_b: questions that one run alone has right. p_value: two-sided exact McNemar test of equal accuracy.
    """

    accuracy_a: float | None
    accuracy_b: float | None
    difference: Interval
    only_a: int
    only_b: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def paired(
    right_a: Mapping[str, bool], right_b: Mapping[str, bool], videos: Mapping[str, str], *, resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:  # fmt: skip
    """Compare two runs. Keys are question ids; `videos` names the video of each.

    The test ignores that questions share videos, the interval does not: where they disagree, trust the interval.
    Raises DataError when the runs did not answer the same questions.
    """
    check_same_questions(right_a, right_b)
    ids = sorted(right_a)
    a_N, b_N = (np.array([right[key] for key in ids], dtype=float) for right in (right_a, right_b))
    ones_N = np.ones(len(ids))
    names = [videos[key] for key in ids]
    differences_N1, ones_N1 = (b_N - a_N)[:, None], ones_N[:, None]
    (difference,) = ratios(names, differences_N1, ones_N1, resamples=resamples, seed=seed)
    only_a, only_b = int(((a_N == 1) & (b_N == 0)).sum()), int(((a_N == 0) & (b_N == 1)).sum())
    accuracy_a, accuracy_b = (float(right.mean()) if ids else None for right in (a_N, b_N))
    return Paired(accuracy_a, accuracy_b, difference, only_a, only_b, mcnemar(only_a, only_b))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value of the exact test (McNemar 1947): under equal accuracy a discordant pair is a fair coin."""
    total = only_a + only_b
    return float(binomtest(only_a, total, 0.5).pvalue) if total else 1.0


def check_same_questions(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raises DataError that counts the differing ids and shows some."""
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if only_a or only_b:
        shown = ", ".join([*only_a[:3], *only_b[:3]])
        raise DataError(
            f"the two runs did not answer the same questions: {len(only_a)} are only in the first, {len(only_b)} only in the "
            f"second, such as {shown}. Evaluate both on the same test sets (`data.test`)."
        )
