"""What kind of world, and which scenes belong to which split."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluenet.records import content_hash

GENERATOR_VERSION = 1

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 235),
    "yellow": (235, 220, 50),
    "purple": (160, 50, 190),
    "cyan": (50, 210, 220),
    "orange": (245, 140, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
HELD_OUT = frozenset({("red", "cross"), ("green", "circle"), ("blue", "triangle"), ("yellow", "square")})
"""Colour and shape combinations that only `ood_combinations` shows."""

Split = Literal["train", "validation", "test", "hallucination", "ood_combinations", "ood_objects", "ood_long"]
SPLITS: tuple[Split, ...] = (
    "train", "validation", "test", "hallucination", "ood_combinations", "ood_objects", "ood_long",
)  # fmt: skip


class WorldSettings(BaseModel):
    """Size and difficulty. The defaults are what the quickstart's figures were measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Another seed, another world: no scene is shared.")
    grid: int = Field(4, ge=4, le=8, description="Cells per side.")
    cell: int = Field(16, ge=16, multiple_of=16, description="Pixels per side of a cell; the video is grid x cell wide.")
    objects: int = Field(5, ge=4, le=7, description="Objects of a scene, each with a colour of its own.")
    steps: int = Field(8, ge=8, le=16, description="Steps of a scene; one event happens in each but the first.")
    frames_per_step: int = Field(4, ge=2, description="Frames that one step lasts.")
    fps: int = Field(16, ge=1, description="Frames per second of the video.")
    noise: float = Field(0.0, ge=0, le=64, description="Standard deviation of camera noise, in grey levels of 255.")

    @property
    def side(self) -> int:
        """Height and width of the video in pixels."""
        return self.grid * self.cell

    @property
    def step_seconds(self) -> float:
        return self.frames_per_step / self.fps

    def for_split(self, split: Split) -> WorldSettings:
        """Out-of-distribution splits change the world they are named after."""
        if split == "ood_objects":
            return self.model_copy(update={"objects": 7})
        if split == "ood_long":
            return self.model_copy(update={"steps": 12})
        return self

    def address(self) -> str:
        return content_hash("clueworld", GENERATOR_VERSION, self.model_dump())


def scene_seed(settings: WorldSettings, split: Split, index: int) -> int:
    """A scene's own seed: a hash, so that splits share no seed whatever their sizes."""
    digest = hashlib.sha256(f"{settings.address()}/{split}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
