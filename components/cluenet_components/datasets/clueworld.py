"""The embedded benchmark: generated videos with known events, clues and chains (see `cluenet.testing.clueworld`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, field_validator

from cluenet.contracts import Dataset
from cluenet.errors import suggestion
from cluenet.records import Example, Quarantined
from cluenet.registry import register
from cluenet.steps import setting
from cluenet.testing.clueworld import TYPES, YES_NO_TYPES, WorldSettings, write_clueworld
from cluenet.testing.clueworld.settings import GENERATOR_VERSION, Split
from cluenet.testing.clueworld.writer import scene_examples


@register.dataset("clueworld")
class ClueWorld(Dataset):
    """Short H.264 videos of coloured shapes that move, collide, light up, enter and leave; generated when first used."""

    version = GENERATOR_VERSION

    class Config(Dataset.Config):
        split: Split = Field("train", description="train, validation, test, hallucination or an out-of-distribution split.")
        videos: int = Field(200, ge=1, description="How many videos; each brings about 6 questions.")
        types: tuple[str, ...] | None = Field(
            None, description="Question types; null: the seven with 4 or 5 options, or the yes/no pairs in `hallucination`."
        )
        world: WorldSettings = Field(default_factory=WorldSettings, description="Size and difficulty.")
        folder: str = setting("~/.cache/cluenet/clueworld", "none", description="Where generated videos are kept.")

        @field_validator("types")
        @classmethod
        def _known(cls, types: tuple[str, ...] | None) -> tuple[str, ...] | None:
            for name in types or ():
                if name not in (*TYPES, *YES_NO_TYPES):
                    raise ValueError(f"no question type {name!r}. {suggestion(name, (*TYPES, *YES_NO_TYPES))}")
            return types

    @property
    def types(self) -> tuple[str, ...]:
        default = YES_NO_TYPES if self.config.split == "hallucination" else TYPES
        return self.config.types or default

    def rows(self) -> Iterator[Example | Quarantined]:
        """Generates the videos that are not there yet."""
        config = self.config
        folder = write_clueworld(Path(config.folder), config.split, config.videos, self.types, config.world)
        for index in range(config.videos):
            yield from scene_examples(folder, config.split, index, self.types, config.world)

    def sources(self) -> list[str]:
        return [self.config.world.address(), *self.types]
