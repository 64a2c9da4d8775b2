"""Many tests at once (Holm), and what a test could have seen (power)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.stats import norm

from cluenet.metrics.statistics import sums_by_video

LEVEL = 0.05
POWER = 0.8


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values of one family, adjusted so that the chance of any false discovery is at most the level one compares with.

    Holm (1979), Scandinavian Journal of Statistics 6: the i-th smallest of m is multiplied by m - i + 1, and none falls
    below a smaller one. None (no test) stays None and does not count.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Power:
    """What a two-sided test at 5 % sees of a true difference in accuracy.

    observed: the chance of p < 0.05 if the observed difference were the true one. minimum_detectable: the true difference
    that is found in 80 % of such experiments. None: not defined, or, with a discordance this small, out of reach.
    discordant: share of questions that one run alone has right. design_effect: how many times larger the variance is than
    that of independent questions, since questions share videos. Both None with several seeds.
    """

    observed: float | None
    minimum_detectable: float | None
    discordant: float | None = None
    design_effect: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def paired_power(differences_N: np.ndarray, videos_N: Sequence[str]) -> Power:
    """Of McNemar's test. `differences_N`: right of B - right of A, each -1, 0 or 1.

    With n questions, a share psi of them discordant and a true difference d, the power is
    Phi((|d| sqrt(n) - z_a sqrt(psi)) / sqrt(psi - d^2)), z_a = 1.96: Connor (1987), Biometrics 43, equation 1, after
    Miettinen (1968), Biometrics 24. n is divided by the design effect (Kish 1965, Survey Sampling, section 5.4).
    """
    discordant = float(np.mean(differences_N != 0)) if len(differences_N) else 0.0
    if discordant == 0:
        return Power(None, None, discordant if len(differences_N) else None, None)
    effect = design_effect(differences_N, videos_N)
    independent = len(differences_N) / max(1.0, effect)
    observed = mcnemar_power(float(differences_N.mean()), discordant, independent)
    return Power(observed, mcnemar_detectable(discordant, independent), discordant, effect)


def mcnemar_power(difference: float, discordant: float, n: float) -> float:
    """Connor's formula; `difference` and `discordant` are shares of the `n` questions."""
    reached = abs(difference) * sqrt(n) - _z(1 - LEVEL / 2) * sqrt(discordant)
    spread = sqrt(max(0.0, discordant - difference**2))
    return float(norm.cdf(reached / spread)) if spread > 0 else float(reached > 0)


def mcnemar_detectable(discordant: float, n: float, power: float = POWER) -> float | None:
    """The difference at which `mcnemar_power` is `power`: a root of its quadratic. None when it exceeds the discordance."""
    z_a, z_b = _z(1 - LEVEL / 2), _z(power)
    root = n + z_b**2 - z_a**2
    if root < 0:
        return None
    difference = sqrt(discordant) * (sqrt(n) * z_a + z_b * sqrt(root)) / (n + z_b**2)
    return difference if difference <= discordant else None


def design_effect(values_N: np.ndarray, videos_N: Sequence[str]) -> float:
    """Variance of the mean when videos are drawn, over its variance when questions are. 1.0 where it is not defined."""
    mean, n = float(values_N.mean()), len(values_N)
    residuals_V = sums_by_video(videos_N, (values_N - mean)[:, None])[:, 0]
    independent = float(values_N.var()) / n
    if len(residuals_V) < 2 or independent == 0:
        return 1.0
    by_video = len(residuals_V) / (len(residuals_V) - 1) * float((residuals_V**2).sum()) / n**2
    return by_video / independent


def normal_power(difference: float, error: float) -> Power:
    """Of a difference with standard error `error`: the minimum detectable one is (z_a + z_b) errors (Bloom 1995,
    Evaluation Review 19)."""
    if not error > 0:
        return Power(None, None)
    z_a = _z(1 - LEVEL / 2)
    observed = float(norm.cdf(abs(difference) / error - z_a) + norm.cdf(-abs(difference) / error - z_a))
    return Power(observed, (z_a + _z(POWER)) * error)


def _z(share: float) -> float:
    return float(norm.ppf(share))
