"""Do answers rest on the clues? Estimates from what answers do when clues are changed (`cluenet.model.interventions`).

Comprehensiveness and sufficiency: DeYoung et al. 2020 (ERASER, arXiv 1911.03429). Deletion and insertion curves: Petsiuk et
al. 2018 (RISE, arXiv 1806.07421), over clues instead of pixels, beside the same with random clues.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import trapezoid

from cluenet.metrics.statistics import RESAMPLES, ratios

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Of the shown clues, always at least one, as in ERASER."""

Column = tuple[Sequence[float | None], Sequence[float | bool]]
"""Numerators and denominators of N questions; a question whose numerator is None is left out."""


class Curves(NamedTuple):
    """p(â), the probability of the answer to all k shown clues, of one question; k + 1 values each.

    deletion: the 0 .. k most important clues left out; insertion: those alone; random: 0 .. k random clues alone.
    """

    deletion: Sequence[float]
    insertion: Sequence[float]
    random: Sequence[float]

    @property
    def clues(self) -> int:
        return len(self.deletion) - 1


def num_top(share: float, clues: int) -> int:
    """ceil(share * clues), and one at least."""
    return max(1, math.ceil(share * clues - 1e-9))


def comprehensiveness(curves: Curves, share: float) -> float:
    """p(â|C) - p(â|C without its most important clues)."""
    return curves.deletion[0] - curves.deletion[num_top(share, curves.clues)]


def sufficiency(curves: Curves, share: float) -> float:
    """p(â|C) - p(â|the most important clues alone)."""
    return curves.deletion[0] - curves.insertion[num_top(share, curves.clues)]


def area(curve: Sequence[float]) -> float:
    """Under a curve over the share of clues, 0..1, by the trapezoid rule."""
    return float(trapezoid(curve, dx=1 / (len(curve) - 1)))


def at(curve: Sequence[float], count: int) -> float:
    """Its value after `count` clues; its last one where there are fewer."""
    return curve[min(count, len(curve) - 1)]


def estimates(
    videos_N: Sequence[str], columns: Mapping[str, Column], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Sum of numerators / sum of denominators of each column, as an interval by video; all on the same resamples."""
    tops_NM, bottoms_NM = (np.zeros((len(videos_N), len(columns))) for _ in range(2))
    for place, (tops, bottoms) in enumerate(columns.values()):
        used = np.array([top is not None for top in tops], dtype=bool)
        tops_NM[used, place] = [float(top) for top in tops if top is not None]
        bottoms_NM[:, place] = np.where(used, np.asarray(bottoms, dtype=float), 0.0)
    found = ratios(videos_N, tops_NM, bottoms_NM, resamples=resamples, seed=seed)
    return {name: interval.to_dict() for name, interval in zip(columns, found)}


def mean(values: Sequence[float | None]) -> Column:
    """Of the questions that have a value."""
    return values, [1.0] * len(values)


# ---------------------------------------------------------------------------------------------------- curves


def curve_estimates(
    curves_N: Sequence[Curves], videos_N: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Over N questions, at least one, with at least one shown clue each.

    comprehensiveness, sufficiency  {mean, random, at}: the mean over SHARES, with random clues in the place of the most
                                    important ones, and at each share
    deletion, insertion             {area, random, gain, at}: areas, and by how much the order of importance beats a random one
                                    (deletion: lower is better; insertion: higher; above 0 the order tells something). Only
                                    questions with two clues or more have an order. `at`: after 0, 1, .. clues, with `random`
    """
    most = max(curves.clues for curves in curves_N)
    rows = [_measures(curves, most) for curves in curves_N]
    columns = {name: mean([row[name] for row in rows]) for name in rows[0]}
    found = estimates(videos_N, columns, resamples=resamples, seed=seed)

    def points(name: str, key: str, places: Sequence[float]) -> list[dict[str, Any]]:
        return [{key: place, **found[f"{name}/{place}"], "random": found[f"{name}/{place}/random"]} for place in places]

    def parts(name: str, *names: str) -> dict[str, Any]:
        return {part: found[f"{name}/{part}"] for part in names}

    return {
        **{
            name: {**parts(name, "mean", "random"), "at": points(name, "share", SHARES)}
            for name in ("comprehensiveness", "sufficiency")
        },
        **{
            name: {**parts(name, "area", "random", "gain"), "at": points(name, "clues", range(most + 1))}
            for name in ("deletion", "insertion")
        },
    }


def _measures(curves: Curves, most: int) -> dict[str, float | None]:
    """Of one question, by path in the result."""
    without_random = list(curves.random)[::-1]  # leaving m random clues out keeps k - m random ones
    blind = Curves(without_random, curves.random, curves.random)  # an order of importance that knows nothing
    found: dict[str, float | None] = {}
    for name, of in (("comprehensiveness", comprehensiveness), ("sufficiency", sufficiency)):
        for share in SHARES:
            found[f"{name}/{share}"], found[f"{name}/{share}/random"] = of(curves, share), of(blind, share)
        found[f"{name}/mean"] = fmean(of(curves, share) for share in SHARES)
        found[f"{name}/random"] = fmean(of(blind, share) for share in SHARES)
    for name, curve, control, sign in (
        ("deletion", curves.deletion, without_random, -1),
        ("insertion", curves.insertion, curves.random, 1),
    ):
        for count in range(most + 1):
            found[f"{name}/{count}"], found[f"{name}/{count}/random"] = at(curve, count), at(control, count)
        ordered = curves.clues > 1
        found[f"{name}/area"] = area(curve) if ordered else None
        found[f"{name}/random"] = area(control) if ordered else None
        found[f"{name}/gain"] = sign * (area(curve) - area(control)) if ordered else None
    return found


# ----------------------------------------------------------------------------------------------- for people

HEADLINES = (
    ("comprehensiveness.mean", "lost without the most important clues (comprehensiveness)", "p(â), points"),
    ("comprehensiveness.random", "lost without as many random clues", "p(â), points"),
    ("sufficiency.mean", "lost with the most important clues alone (sufficiency; near 0: they suffice)", "p(â), points"),
    ("deletion.gain", "gained by the order of importance over a random one, leaving clues out (deletion)", "p(â), points"),
    ("insertion.gain", "gained by it over a random one, adding clues (insertion)", "p(â), points"),
    ("swap.flip", "another video's clues change the answer (flip rate)", "questions"),
    ("swap.steer", "another video's clues give the answer that they support (steer rate)", "questions"),
    ("edit.steer", "renamed clues give the renamed answer (steer rate)", "questions"),
    ("noise.cost_after", "accuracy lost to a foreign clue put behind the filter", "accuracy, points"),
    ("noise.cost_through", "accuracy lost to the same clue put through the filter", "accuracy, points"),
    ("noise.kept", "the filter keeps a foreign clue", "foreign clues"),
    ("noise.own_kept", "the filter keeps a clue that the model stated", "stated clues"),
    ("inputs.own", "accuracy", "questions"),
    ("inputs.oracle_uplift", "accuracy gained by ground-truth clues", "accuracy, points"),
    ("inputs.clue_only", "accuracy from the clues alone, no video", "questions"),
    ("inputs.frames_only", "accuracy from the video alone, no clues", "questions"),
    ("inputs.text_only", "accuracy from neither", "questions"),
    ("explained.exact.of_right", "right answers whose needed clues all stand in the text, word for word", "right answers"),
    ("explained.words.of_right", "the same without the time word", "right answers"),
    ("explained.exact.accuracy_if", "accuracy where the needed clues stand in the text", "questions"),
    ("explained.exact.accuracy_if_not", "accuracy where they do not", "questions"),
)  # fmt: skip
"""(path in `faithfulness` of results.json, what it says, unit)."""


def headlines(block: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(what it says, unit, estimate) of what was measured, in order."""
    for path, words, unit in HEADLINES:
        found: Any = block
        for part in path.split("."):
            found = (found or {}).get(part)
        if found and found["value"] is not None:
            yield words, unit, found
