"""Numbers from a benchmark's measures: value, standard error and interval, all by bootstrap over videos.

A measure is a ratio of sums over units, or a macro mean of such ratios (`cluenet.verdicts`), so all of them come from one
set of resamples of the videos, and differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluenet.metrics.statistics import RESAMPLES, bootstrap_draws, intervals, ratio, with_ends
from cluenet.verdicts import MeanOf, Measure, Share


def measured(measures: Sequence[Measure], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, Any]]:
    """{name: {value, stderr, low, high, n}} in the order given; `n`: units, of a macro mean the shares it is over. None:
    not defined (no unit, or for an interval one video).

    Raises ValueError for two measures of one name and for a macro mean of a name that no share has.
    """
    shares = [one for one in measures if isinstance(one, Share)]
    column = {share.name: place for place, share in enumerate(shares)}
    names = [one.name for one in measures]
    unknown = [name for one in measures if isinstance(one, MeanOf) for name in one.of if name not in column]
    if len(set(names)) < len(names) or unknown:
        raise ValueError(f"measures {names}: names must differ, and macro means be over shares among them: {unknown}")
    means = [[column[name] for name in one.of] for one in measures if isinstance(one, MeanOf)]
    videos, values_NM = _table(shares)

    def statistic(sums: np.ndarray) -> np.ndarray:
        by_share = ratio(sums[..., : len(shares)], sums[..., len(shares) :])
        return np.concatenate([by_share, *(_mean(by_share[..., places]) for places in means)], axis=-1)

    estimate_J, draws_RJ = bootstrap_draws(videos, values_NM, statistic, resamples=resamples, seed=seed)
    sizes = [len(share.values_U) for share in shares]
    sizes += [sum(sizes[place] > 0 for place in places) for places in means]
    order = [one.name for one in shares] + [one.name for one in measures if isinstance(one, MeanOf)]
    rows = zip(order, intervals(with_ends(estimate_J, draws_RJ), sizes), draws_RJ.T, strict=True)
    found = {name: {"value": one.value, "stderr": _stderr(draws_R), **one.to_dict()} for name, one, draws_R in rows}
    return {name: found[name] for name in names}


def _table(shares: Sequence[Share]) -> tuple[list[str], np.ndarray]:
    """Units of all shares under each other: numerators in the first columns, weights in the last."""
    videos = [video for share in shares for video in share.videos_U]
    table = np.zeros((len(videos), 2 * len(shares)))
    row = 0
    for place, share in enumerate(shares):
        rows = slice(row, row := row + len(share.values_U))
        table[rows, place] = share.values_U
        table[rows, len(shares) + place] = 1.0 if share.weights_U is None else share.weights_U
    return videos, table


def _mean(values: np.ndarray) -> np.ndarray:
    """[..., 1] of those that are defined."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1, keepdims=True), known.sum(-1, keepdims=True))


def _stderr(draws_R: np.ndarray) -> float | None:
    known = draws_R[~np.isnan(draws_R)]
    return float(known.std(ddof=1)) if len(known) > 1 else None
