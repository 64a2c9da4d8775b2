"""Accuracy: which answers are right, by question type, with intervals, and what chance would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluenet.metrics.statistics import RESAMPLES, Interval, bootstrap, intervals, ratio, ratios


def is_right(prediction: int | str | None, answer: int | str) -> bool:
    """The right option; of an open question, the reference's words whatever their case and spacing. None is never right."""
    if isinstance(answer, int):
        return prediction == answer
    return str(prediction).casefold().split() == answer.casefold().split()


@dataclass(frozen=True)
class Accuracy:
    """`overall` counts every question once (micro), `macro` every question type once."""

    overall: Interval
    macro: Interval
    by_type: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        types = {name: interval.to_dict() for name, interval in self.by_type.items()}
        return {"overall": self.overall.to_dict(), "macro": self.macro.to_dict(), "by_type": types}


def accuracy(
    right_N: Sequence[bool],
    types_N: Sequence[str],
    videos_N: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Accuracy:
    """Of N questions. Without any, every value is None."""
    types = sorted(set(types_N))
    right_N1 = np.asarray(right_N, dtype=float).reshape(-1, 1)
    member_NY = np.array([[kind == own for kind in types] for own in types_N], dtype=float).reshape(
        len(right_N1), len(types)
    )
    values_NM = np.concatenate([member_NY * right_N1, member_NY], axis=1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        rights, counts = sums[..., : len(types)], sums[..., len(types) :]
        by_type = ratio(rights, counts)
        seen = np.maximum(1, (counts > 0).sum(-1, keepdims=True))
        macro = np.where(counts.sum(-1, keepdims=True) > 0, np.nansum(by_type, -1, keepdims=True) / seen, np.nan)
        overall = ratio(rights.sum(-1, keepdims=True), counts.sum(-1, keepdims=True))
        return np.concatenate([overall, macro, by_type], axis=-1)

    found = bootstrap(videos_N, values_NM, statistic, resamples=resamples, seed=seed)
    counts = [len(right_N1), len(types), *member_NY.sum(0)]
    overall, macro, *rest = intervals(found, counts)
    return Accuracy(overall, macro, dict(zip(types, rest)))


def accuracy_on_all(
    right_N: Sequence[bool],
    videos_N: Sequence[str],
    lost_videos: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Accuracy when questions that could not be asked count as wrong. `lost_videos`: the video of each of them."""
    right_M1 = np.array([*map(float, right_N), *[0.0] * len(lost_videos)]).reshape(-1, 1)
    videos = [*videos_N, *lost_videos]
    return ratios(videos, right_M1, np.ones_like(right_M1), resamples=resamples, seed=seed)[0]


def chance(num_options_N: Sequence[int]) -> float | None:
    """Expected accuracy of guessing: the mean of 1 / options; an open question (0 options) cannot be guessed."""
    values = [1 / count if count else 0.0 for count in num_options_N]
    return sum(values) / len(values) if values else None


def position_counts(positions: Sequence[int], num_options: int) -> list[int]:
    """How often each of the `num_options` places was chosen; a flat list has no position bias."""
    return np.bincount(np.asarray(positions, dtype=int), minlength=num_options).tolist() if num_options else []
