"""Seeing things that are not there: pairs of yes/no questions, and the bias towards yes.

The measures of HallusionBench (Guan et al. 2024, arXiv 2310.14566) and VideoHallucer (Wang et al. 2024, arXiv 2406.16338).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cluenet.metrics.statistics import RESAMPLES, bootstrap, intervals, ratio

MEASURES = ("pair_accuracy", "yes_rate", "true_yes_rate", "yes_bias", "false_positive_rate", "false_positive_ratio")


class YesNo(NamedTuple):
    """One yes/no question. `pair`: a name that it shares with the questions of its pair, or None. `says_yes` None: the reply
    says neither, which is wrong."""

    video: str
    pair: str | None
    says_yes: bool | None
    is_yes: bool


def pairs_of(pairs_N: Sequence[str | None]) -> list[list[int]]:
    """Places of the questions of every complete pair, in the order of their first question."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs_N):
        if pair is not None:
            places[pair].append(place)
    return [members for members in places.values() if len(members) > 1]


def hallucination(answers_N: Sequence[YesNo], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Every measure as an interval by video.

    pair_accuracy: share of pairs whose questions are all answered right (n: pairs). yes_rate, true_yes_rate: share of
    questions answered yes, and share whose answer is yes. yes_bias: their difference. false_positive_rate: share answered
    yes where the answer is no. false_positive_ratio: share of wrong answers that are a wrong yes; 0.5 is even.
    """
    said_N, true_N = (np.array([getattr(one, name) is True for one in answers_N]) for name in ("says_yes", "is_yes"))
    right_N = np.array([one.says_yes == one.is_yes for one in answers_N])
    in_pair_N, right_pair_N = _pairs(answers_N, right_N)
    false_yes_N = said_N & ~true_N
    columns = [
        said_N, true_N, np.ones_like(said_N), false_yes_N, ~right_N & ~false_yes_N, right_pair_N, in_pair_N
    ]  # fmt: skip
    values_NM = np.stack(columns, axis=1).astype(float)
    found_3J = bootstrap([one.video for one in answers_N], values_NM, _measures, resamples=resamples, seed=seed)
    _, true, n, false_yes, other_wrong, _, pairs = values_NM.sum(0)
    counts = (pairs, n, n, n, n - true, false_yes + other_wrong)
    return {name: interval.to_dict() for name, interval in zip(MEASURES, intervals(found_3J, counts))}


def _pairs(answers_N: Sequence[YesNo], right_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which questions stand for a complete pair (the first of each), and which of them for one that is all right."""
    in_pair_N, right_pair_N = np.zeros(len(answers_N), dtype=bool), np.zeros(len(answers_N), dtype=bool)
    for first, *others in pairs_of([one.pair for one in answers_N]):
        in_pair_N[first] = True
        right_pair_N[first] = right_N[[first, *others]].all()
    return in_pair_N, right_pair_N


def _measures(sums: np.ndarray) -> np.ndarray:
    said, true, n, false_yes, other_wrong, right_pairs, pairs = np.moveaxis(sums, -1, 0)
    values = (
        ratio(right_pairs, pairs), ratio(said, n), ratio(true, n), ratio(said - true, n), ratio(false_yes, n - true),
        ratio(false_yes, false_yes + other_wrong),
    )  # fmt: skip
    return np.stack(values, axis=-1)
