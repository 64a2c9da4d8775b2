"""As many clues as are useful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cluenet.contracts import Judged
from cluenet.model.conformal import FEATURES, calibrate, passes
from cluenet.registry import register
from cluenet_components.clue_filters._gate import GateConfig, GatedFilter, best


@register.clue_filter("adaptive")
class AdaptiveFilter(GatedFilter):
    """Keeps the clues whose learned gate passes a threshold, at most `max_clues`; none at all if none passes.

    The gate is taught in stage 2 which clues matter: leaving one out must lower the right answer's probability. With
    `threshold: conformal` the threshold follows each question's gates and is calibrated on validation clips after training,
    so that useful clues are kept with probability 1 - alpha at least; until then every clue is kept.
    """

    version = 3

    class Config(GateConfig):
        threshold: Annotated[float, Field(ge=0, le=1)] | Literal["conformal"] = Field(
            0.3, description="A clue is kept when its gate is at least this; conformal: calibrated, see `alpha`."
        )
        alpha: float = Field(0.1, gt=0, lt=1, description="conformal: share of useful clues that may be lost.")
        calibration_clips: int = Field(
            200,
            ge=2,
            description="conformal: validation clips it is calibrated on, at most; those unseen in training first.",
        )
        max_clues: int | None = Field(
            None, ge=1, description="Keep at most so many, the highest gates; null: all that pass."
        )

    def __init__(self, config: Config, *, width: int, words: int):
        super().__init__(config, width=width, words=words)
        if config.threshold == "conformal":  # in a buffer, so that the model folder has it
            self.register_buffer("threshold_weights", torch.zeros(FEATURES, dtype=torch.float64))
            everything = torch.finfo(torch.float64).max  # passes until it is calibrated; finite, as checkpoints must be
            self.register_buffer("threshold_shift", torch.tensor(everything, dtype=torch.float64))

    def keep(self, gate_BQK: Tensor, present_BQK: Tensor, *, seeds_BQ: Tensor) -> Tensor:
        passed = self._passes(gate_BQK, present_BQK) & present_BQK
        limit = self.config.max_clues
        return passed if limit is None else best(gate_BQK, passed, limit)

    def _passes(self, gate_BQK: Tensor, present_BQK: Tensor) -> Tensor:
        if self.config.threshold == "conformal":
            return passes(gate_BQK, present_BQK, self.threshold_weights, self.threshold_shift)
        return gate_BQK >= self.config.threshold

    @property
    def promised(self) -> float | None:
        """A limit may drop clues that pass the threshold."""
        conformal = self.config.threshold == "conformal" and self.config.max_clues is None
        return 1 - self.config.alpha if conformal else None

    @classmethod
    def calibration_clips(cls, config: Config) -> int:
        return config.calibration_clips if config.threshold == "conformal" else 0

    def calibrate(self, clips: Sequence[Judged], *, seed: int) -> dict[str, float | str]:
        found = calibrate(clips, alpha=self.config.alpha, seed=seed)
        self.threshold_weights.copy_(torch.from_numpy(found.weights))
        self.threshold_shift.fill_(found.shift)
        return found.facts(self.config.alpha)
