"""What a world looks like and asks: sizes, difficulty and question types. One `WorldSettings` describes it completely."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from cluenet.records import content_hash

GENERATOR_VERSION = 3
"""Raise when the same settings give other scenes, frames or questions."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 235),
    "yellow": (235, 220, 50),
    "purple": (160, 50, 190),
    "cyan": (50, 210, 220),
    "orange": (245, 140, 30),
}
"""RGB of every colour. No two objects of a scene share one, so a colour names an object."""

SHAPES = ("circle", "square", "triangle", "cross")

HELD_OUT = frozenset({("red", "cross"), ("green", "circle"), ("blue", "triangle"), ("yellow", "square")})
"""The 4 of 28 (colour, shape) combinations that only the split `ood_combinations` shows."""

QuestionType = Literal[
    "shape", "count", "who", "causal", "after", "before", "predict", "exists_object", "exists_event"
]  # fmt: skip
YES_NO_TYPES: tuple[QuestionType, ...] = ("exists_object", "exists_event")
TYPES: tuple[QuestionType, ...] = tuple(kind for kind in get_args(QuestionType) if kind not in YES_NO_TYPES)
"""Questions with three to five options; `YES_NO_TYPES` come in pairs, one answered yes and one no."""


class WorldSettings(BaseModel):
    """Size, difficulty and questions of a world. The defaults are the small world that a CPU learns in minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="Another seed gives another world, which shares no scene with this one.")
    grid: int = Field(4, ge=4, le=8, description="Cells per side; an object at rest fills one cell.")
    cell: int = Field(
        16,
        ge=16,
        le=128,
        multiple_of=16,
        description="Pixels per side of a cell; the video is grid x cell pixels wide and high.",
    )
    objects: int = Field(5, ge=5, le=7, description="Objects of a scene, each of its own colour.")
    steps: int = Field(8, ge=8, le=24, description="Steps of a scene; one event happens in each but the first.")
    frames_per_step: int = Field(4, ge=2, le=32, description="Frames of a step; fewer make everything move faster.")
    fps: int = Field(16, ge=1, le=60, description="Frames per second of the video.")
    combinations: Literal["usual", "held_out"] = Field(
        "usual",
        description="usual: all colour and shape combinations but four; held_out: scenes with at least two objects of those four.",
    )
    contrast: float = Field(
        1.0, ge=0.2, le=1, description="1: pure colours; lower ones are mixed with grey and so look more alike."
    )
    noise: float = Field(
        0.0, ge=0, le=64, description="Standard deviation of camera noise, in grey levels of 0 to 255."
    )
    types: tuple[QuestionType, ...] | None = Field(
        None,
        min_length=1,
        description="Question types; null: the yes/no pairs in split hallucination, all others elsewhere.",
    )
    questions_per_video: int | None = Field(
        None, ge=1, description="At most so many questions per video, chosen at random; null: all, five or six."
    )

    @property
    def side(self) -> int:
        """Height and width of the video in pixels."""
        return self.grid * self.cell

    @property
    def step_seconds(self) -> float:
        return self.frames_per_step / self.fps

    @property
    def hash(self) -> str:
        """Address of everything these settings generate."""
        return content_hash("clueworld", GENERATOR_VERSION, self.model_dump())

    @property
    def videos_hash(self) -> str:
        """Address of the videos, which do not depend on what is asked about them."""
        return content_hash("clueworld", GENERATOR_VERSION, self.model_dump(exclude={"types", "questions_per_video"}))
