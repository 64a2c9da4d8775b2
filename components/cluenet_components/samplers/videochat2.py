"""The frames that VideoChat2 is scored on: `get_index` of `video_chat2/mvbench.ipynb`, https://github.com/OpenGVLab/Ask-Anything."""

from __future__ import annotations

from pydantic import Field

from cluenet.contracts import Sampler, VideoFile
from cluenet.registry import ComponentConfig, register


@register.sampler("videochat2")
class VideoChat2Sampler(Sampler):
    """The very frames of MVBench's notebook: like `uniform`, but rounded to whole steps, and the last frame is never reached.

    Frame i of n is int(first + step / 2 + round(step * i)) with step = (last - first) / n. A shorter clip repeats frames.
    """

    class Config(ComponentConfig):
        frames: int = Field(16, ge=1, description="How many frames to keep.")

    config: Config

    def sample(self, video: VideoFile, first: int, last: int) -> list[int]:
        step = (last - first) / self.config.frames
        return [int(first + step / 2 + round(step * i)) for i in range(self.config.frames)]
