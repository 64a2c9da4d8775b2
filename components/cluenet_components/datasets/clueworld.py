"""The embedded benchmark: generated videos with known events, clues and chains (see `cluenet.testing.clueworld`).

data:
  train: [{name: clueworld, split: train, videos: 4000}]
  test: [{name: clueworld, split: test, videos: 300}, {name: clueworld, split: hallucination, videos: 100}]
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from cluenet.contracts import Dataset
from cluenet.records import Example, Quarantined
from cluenet.registry import register
from cluenet.steps import setting
from cluenet.testing.clueworld import (
    GENERATOR_VERSION,
    Split,
    WorldSettings,
    scene_examples,
    split_settings,
    write_videos,
)


@register.dataset("clueworld")
class ClueWorld(Dataset):
    """Short videos of coloured shapes that move, collide, light up, enter and leave; generated when first used.

    Brings clues with times and boxes, distractors and chains. Splits: train, validation, test; hallucination (yes/no pairs
    about absent objects and events); and three that differ from training in one thing: ood_combinations (colour and shape
    combinations never seen), ood_objects (6 or 7 objects), ood_long (half as many steps again). They share no scene.
    """

    version = GENERATOR_VERSION

    class Config(WorldSettings, Dataset.Config):
        split: Split = Field("train", description="Which split of the world to use.")
        videos: int = Field(200, ge=1, description="How many videos; each brings five or six questions.")
        folder: str = setting(
            "~/.cache/cluenet/clueworld",
            "none",
            min_length=1,
            description="Where generated videos are kept; on a cluster, a folder that every node sees.",
        )
        workers: int | None = setting(
            None, "none", ge=1, description="Processes that generate videos; null: one per processor."
        )

    config: Config

    @property
    def settings(self) -> WorldSettings:
        return WorldSettings(**{name: getattr(self.config, name) for name in WorldSettings.model_fields})

    @property
    def folder(self) -> Path:
        """Where these settings' videos are; more videos, or other questions about them, find those that are there."""
        return Path(self.config.folder).expanduser() / self.settings.videos_hash

    def rows(self) -> Iterator[Example | Quarantined]:
        """Every question, about videos that are generated first where they are missing.

        Raises DataError for settings that the split cannot have, StorageError when the folder cannot be written.
        """
        split, videos, settings = self.config.split, self.config.videos, self.settings
        split_settings(settings, split, 0)  # raises before anything is generated
        write_videos(self.folder, split, videos, settings, workers=self.config.workers or os.cpu_count() or 1)
        yield from self.described()

    def described(self) -> Iterator[Example | Quarantined]:
        folder, settings = self.folder, self.settings
        for index in range(self.config.videos):
            yield from scene_examples(folder, self.config.split, index, settings)

    @property
    def num_clips(self) -> int:
        return self.config.videos

    def sources(self) -> list[str]:
        return [f"clueworld generator {GENERATOR_VERSION}", self.settings.hash]
