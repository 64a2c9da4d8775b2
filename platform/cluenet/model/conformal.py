"""A threshold for gates that follows the question and keeps useful clues with a chosen probability: split conformal
prediction (Vovk et al. 2005; Lei et al. 2018, arXiv 1604.04173).

The threshold of a question is tau(q) = sigmoid(w . f(q) - shift), where f(q) = [1, mean, std, mean entropy] of its gates. Half
of the validation clips fit w, so that w . f(q) predicts the logits of useful clues' gates. The other half calibrate: the score
of a useful clue is how far its logit falls below that prediction, and `shift` is the ceil((n + 1)(1 - alpha))-th smallest of n
scores. A useful clue of a new clip is then kept with probability 1 - alpha at least, whatever the gate and w are worth,
if new clips come from where validation's came from. Clues of one clip depend on each other, so a calibration clip gives
one score, of a useful clue drawn at random: the promise is about the mean over clips of the share of useful clues kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cluenet.contracts import Judged

FEATURES = 4
LEAST_FIT = 20
"""Fewer useful clues than this fit no w: the threshold is then the same for every question."""
RIDGE = 1e-3
EDGE = 1e-6
"""Gates are this far from 0 and 1, so that their logits are finite."""


@dataclass(frozen=True)
class Calibration:
    weights: np.ndarray  # w, [FEATURES]
    shift: float  # inf: too few clips for alpha, every clue is kept
    fitted: int  # useful clues behind w
    clips: int  # behind shift

    def facts(self, alpha: float) -> dict[str, float | str]:
        """Rows of a model card."""
        promise = f"keeps a useful clue with probability {1 - alpha:g} at least; calibrated on {self.clips} clips"
        few = f"keeps every clue: alpha {alpha:g} needs {least_clips(alpha)} calibration clips with a useful clue, not {self.clips}"
        adapts = f"by {self.fitted} useful clues of other clips" if self.weights.any() else "no, one for all questions"
        return {"clue threshold": promise if math.isfinite(self.shift) else few, "clue threshold adapts": adapts}


def quantile(scores: Sequence[float] | np.ndarray, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of n scores, inf where that is more than n.

    A further exchangeable score is at most this with probability 1 - alpha at least, and at most 1 - alpha + 1 / (n + 1)
    without ties.
    """
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)  # 10 * (1 - 0.3) is a little more than 7
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def least_clips(alpha: float) -> int:
    """The fewest scores with a finite quantile."""
    return math.ceil((1 - alpha) / alpha - 1e-9)


def calibrate(clips: Sequence[Judged], *, alpha: float, seed: int) -> Calibration:
    """Clips without a useful clue are left out."""
    rng = np.random.default_rng(seed)
    useful = [rows for rows in _useful_rows(clips) if len(rows)]
    order = rng.permutation(len(useful))
    fit, rest = (
        [useful[i] for i in part] for part in (order[: len(order) // 2], order[len(order) // 2 :])
    )  # the odd one calibrates
    weights, fitted = _fit(fit)
    scores = [row[:-1] @ weights - row[-1] for row in (rng.choice(rows) for rows in rest)]
    return Calibration(weights, quantile(scores, alpha), fitted, len(scores))


def passes(gate_BQK: Tensor, present_BQK: Tensor, weights_F: Tensor, shift: Tensor) -> Tensor:
    """Bool [B, Q, K]: gates that are at least tau(q)."""
    gate = gate_BQK.double()
    threshold_BQ1 = (features(gate, present_BQK) @ weights_F - shift)[..., None]
    return _logit(gate) >= threshold_BQ1


def features(gate_BQK: Tensor, present_BQK: Tensor) -> Tensor:
    """[B, Q, FEATURES]: 1, and mean, standard deviation and mean entropy (nats) of the gates of a question's clues."""
    mask, count = present_BQK.to(gate_BQK.dtype), present_BQK.sum(-1).clamp(min=1)

    def mean(values_BQK: Tensor) -> Tensor:
        return (values_BQK * mask).sum(-1) / count

    gate = gate_BQK.clamp(EDGE, 1 - EDGE)
    entropy = -(gate * gate.log() + (1 - gate) * (1 - gate).log())
    middle = mean(gate)
    spread = mean((gate - middle[..., None]).square()).sqrt()
    return torch.stack([torch.ones_like(middle), middle, spread, mean(entropy)], dim=-1)


def _useful_rows(clips: Sequence[Judged]) -> list[np.ndarray]:
    """Of every clip [useful clues, FEATURES + 1]: the features of each one's question, and the logit of its gate."""
    if not clips:
        return []
    gate, present, useful = (
        torch.from_numpy(np.concatenate([getattr(clip, name) for clip in clips]))[None]
        for name in ("gate_QK", "present_QK", "useful_QK")
    )
    _, q, k = torch.nonzero(present & useful, as_tuple=True)
    gate = gate.double()
    rows = torch.cat([features(gate, present)[0, q], _logit(gate)[0, q, k, None]], dim=-1).numpy()
    ends = np.searchsorted(q.numpy(), np.cumsum([len(clip.gate_QK) for clip in clips]))
    return np.split(rows, ends[:-1])


def _fit(clips: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Ridge regression of logits on features; zeros where there are too few."""
    rows = np.concatenate([np.zeros((0, FEATURES + 1)), *clips])
    if len(rows) < LEAST_FIT:
        return np.zeros(FEATURES), 0
    x, y = rows[:, :-1], rows[:, -1]
    return np.linalg.solve(x.T @ x + RIDGE * len(rows) * np.eye(FEATURES), x.T @ y), len(rows)


def _logit(gate: Tensor) -> Tensor:
    return torch.logit(gate, eps=EDGE)
