"""The embedded benchmark: generated videos with known events, clues and chains (see `cluenet.testing.clueworld`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from cluenet.contracts import Dataset
from cluenet.records import Example, Quarantined
from cluenet.registry import register
from cluenet.steps import setting
from cluenet.testing.clueworld import Split, WorldSettings, write_clueworld
from cluenet.testing.clueworld.settings import GENERATOR_VERSION
from cluenet.testing.clueworld.writer import scene_examples


@register.dataset("clueworld")
class ClueWorld(Dataset):
    """Short H.264 videos of coloured shapes that move, collide, light up, enter and leave; generated when first used."""

    version = GENERATOR_VERSION

    class Config(Dataset.Config):
        split: Split = Field("train", description="train, validation, test, hallucination or an out-of-distribution split.")
        videos: int = Field(200, ge=1, description="How many videos; each brings about 6 questions.")
        world: WorldSettings = Field(default_factory=WorldSettings, description="Size, difficulty and question types.")
        folder: str = setting(
            "~/.cache/cluenet/clueworld", "none", description="Where generated videos are kept, by content."
        )

    def rows(self) -> Iterator[Example | Quarantined]:
        """Generates the videos that are not there yet."""
        config = self.config
        folder = write_clueworld(Path(config.folder), config.split, config.videos, config.world)
        for index in range(config.videos):
            yield from scene_examples(folder, config.split, index, config.world)

    def sources(self) -> list[str]:
        return [self.config.world.hash]
