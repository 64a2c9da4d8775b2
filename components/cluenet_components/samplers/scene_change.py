"""More frames where the picture changes."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from cluenet.contracts import Sampler, VideoFile
from cluenet.registry import ComponentConfig, register
from cluenet_components.samplers._spread import spread

THUMBNAIL = (32, 32)


@register.sampler("scene_change")
class SceneChangeSampler(Sampler):
    """Half of the frames evenly, so that no part is left out; the other half right after the largest changes."""

    class Config(ComponentConfig):
        frames: int = Field(16, ge=2, description="How many frames to keep.")
        probes: int = Field(64, ge=4, description="How many frames are looked at, as small thumbnails.")

    config: Config

    def sample(self, video: VideoFile, first: int, last: int) -> list[int]:
        wanted = self.config.frames
        if last - first + 1 <= wanted:
            return spread(first, last, wanted)
        probes = sorted(set(spread(first, last, min(self.config.probes, last - first + 1))))
        thumbnails = video.frames(probes, THUMBNAIL).astype(np.int16)
        change = np.abs(np.diff(thumbnails, axis=0)).mean(axis=(1, 2, 3))
        order = [probes[i + 1] for i in np.argsort(-change, kind="stable")]
        chosen = set(spread(first, last, wanted - wanted // 2))
        for index in [*order, *spread(first, last, 4 * wanted), *range(first, last + 1)]:
            if len(chosen) == wanted:
                break
            chosen.add(index)
        return sorted(chosen)
