"""A fixed rate of frames, within a budget."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from cluenet.contracts import Sampler, VideoFile
from cluenet.registry import ComponentConfig, register
from cluenet_components.samplers._spread import spread


@register.sampler("fps")
class FpsSampler(Sampler):
    """`rate` frames per second of true time; a clip that would need more than `max_frames` gets that many, evenly."""

    class Config(ComponentConfig):
        rate: float = Field(1.0, gt=0, description="Frames per second.")
        max_frames: int = Field(64, ge=1, description="The most frames of a clip.")

    config: Config

    def sample(self, video: VideoFile, first: int, last: int) -> list[int]:
        seconds = video.seconds_F[first : last + 1]
        periods = int((seconds[-1] - seconds[0]) * self.config.rate + 1e-6)
        if periods >= self.config.max_frames:
            return spread(first, last, self.config.max_frames)
        times = seconds[0] + np.arange(periods + 1) / self.config.rate
        nearest = np.abs(seconds[None, :] - times[:, None]).argmin(axis=1)
        return sorted({first + int(index) for index in nearest})
