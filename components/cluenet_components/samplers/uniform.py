"""A fixed number of frames, evenly spaced."""

from __future__ import annotations

from pydantic import Field

from cluenet.contracts import Sampler, VideoFile
from cluenet.registry import ComponentConfig, register
from cluenet_components.samplers._spread import spread


@register.sampler("uniform")
class UniformSampler(Sampler):
    """The middle frame of each of n equal parts of the clip; a shorter clip repeats frames."""

    class Config(ComponentConfig):
        frames: int = Field(16, ge=1, description="How many frames to keep.")

    config: Config

    def sample(self, video: VideoFile, first: int, last: int) -> list[int]:
        return spread(first, last, self.config.frames)
