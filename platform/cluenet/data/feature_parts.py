"""What a worker of the step `features` does: load the vision tower once, run it over the clips of a part, write the part. Ray-free.

A clip goes through the tower alone, so that a part depends on its clips and the tower only, whoever makes it and when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cluenet.features import CLIPS_PER_PART, part_name, read_account, write_part
from cluenet.model.grid import Grid
from cluenet.model.vision import EncodedClip
from cluenet.model.vlm import VisionLanguageModel
from cluenet.prepared import PreparedSet

Account: TypeAlias = dict[str, Any]
"""Of a part: `clips`, `bytes`, `reused`."""


@dataclass(frozen=True)
class FeatureJob:
    """All that a worker needs, as plain values. Paths are absolute."""

    folder: str
    prepared: str
    base: str  # backbone in Hugging Face layout
    loading: dict[str, Any]  # dtype and attention, as `Backbone.loading` says
    device: str
    threads: int


@dataclass(frozen=True)
class Part:
    number: int
    keys: tuple[str, ...]  # of its clips

    @property
    def name(self) -> str:
        return part_name(self.number)


def parts_of(clip_keys: Sequence[str]) -> list[Part]:
    starts = range(0, len(clip_keys), CLIPS_PER_PART)
    return [Part(n, tuple(clip_keys[first : first + CLIPS_PER_PART])) for n, first in enumerate(starts)]


class PartEncoder:
    """Makes parts; the tower is loaded with the first one that is not there yet."""

    def __init__(self, job: FeatureJob):
        torch.set_num_threads(job.threads)
        self._job, self._folder = job, Path(job.folder)

    @cached_property
    def _prepared(self) -> PreparedSet:
        return PreparedSet(self._job.prepared)

    @cached_property
    def _vlm(self) -> VisionLanguageModel:
        """Only the tower goes to the device; the language model gives its memory back."""
        vlm = VisionLanguageModel.load(self._job.base, **self._job.loading).eval()
        vlm.text.to("meta")
        attrgetter(vlm.family.tower)(vlm.hf).to(self._job.device)
        return vlm

    def account(self, part: Part) -> Account:
        """The account of the part, which is made unless it is there. Raises StorageError, DataError, CheckpointError."""
        path = self._folder / part.name
        known = read_account(path)
        made = known or write_part(path, list(self._encoded(part.keys)))
        return {"clips": made["clips"], "bytes": made["bytes"], "reused": known is not None}

    @torch.no_grad()
    def _encoded(self, keys: Sequence[str]) -> Iterator[EncodedClip]:
        """Pixels are made in a thread while the tower looks at the clip before."""
        vlm, device = self._vlm, self._job.device
        with ThreadPoolExecutor(1) as ahead:
            for grid, pixels in ahead.map(self._pixels, keys):
                states = vlm.tower(pixels.to(device), vlm.grid_thw([grid]).to(device))
                yield EncodedClip(grid, states.to("cpu"))

    def _pixels(self, key: str) -> tuple[Grid, torch.Tensor]:
        frames = self._prepared.frames(key)
        grid = self._vlm.grid_of(frames)
        return grid, self._vlm.pixels(frames.frames_THWC, grid)
