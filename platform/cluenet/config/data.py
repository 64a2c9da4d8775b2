"""`data:` — which questions, which frames of which videos, and where clues come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cluenet.config.base import Section
from cluenet.registry import ComponentConfig, register
from cluenet.steps import setting


class Size(Section):
    """Frame size: exactly `height` x `width`, or at most `max_pixels` with the video's own shape kept."""

    height: int | None = setting(None, "prepare", description="Frame height in pixels.", ge=16)
    width: int | None = setting(None, "prepare", description="Frame width in pixels.", ge=16)
    max_pixels: int | None = setting(None, "prepare", description="Largest height x width; shape is kept.", ge=256)
    multiple: int = setting(32, "prepare", description="With max_pixels: sides are multiples of this.", ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> Size:
        exact = self.height is not None and self.width is not None
        partly = (self.height is None) != (self.width is None)
        if partly or exact == (self.max_pixels is not None):
            raise ValueError("give height and width, or max_pixels, and not both")
        return self


class DataSection(Section):
    reader: Annotated[ComponentConfig, register.reader] = setting(
        "decord", "prepare", description="Opens and decodes videos."
    )
    fallback_reader: Annotated[ComponentConfig, register.reader] | None = setting(
        "pyav", "prepare", description="Tried before a video is quarantined; null for none."
    )
    sampler: Annotated[ComponentConfig, register.sampler] = setting(
        "uniform", "prepare", description="Chooses the frames of a clip."
    )
    size: Size = Field(default_factory=lambda: Size(max_pixels=200704), description="Size frames are decoded to.")
    codec: Literal["lossless", "jpeg95"] = setting(
        "lossless", "prepare", description="How prepared frames are stored; part of the frame policy."
    )
    clue_source: Annotated[ComponentConfig, register.clue_source] = setting(
        "annotated", "prepare", description="Where clues and chains come from."
    )
    features: bool = setting(
        False,
        "none",
        description="Run the frozen vision tower once over every clip and keep what it sees in the store; training and evaluation "
        "read that instead of running the tower.",
    )
    train: tuple[Annotated[ComponentConfig, register.dataset], ...] = setting(
        (), "stage1", description="Training datasets, mixed by their weights."
    )
    validation: tuple[Annotated[ComponentConfig, register.dataset], ...] = setting(
        (), "stage1", description="Datasets that choose the checkpoint."
    )
    test: tuple[Annotated[ComponentConfig, register.dataset], ...] = setting(
        (), "evaluate", description="Datasets that are scored at the end."
    )
    allow_overlap: tuple[str, ...] = setting(
        (), "none", description="Names of test datasets that may share videos with data.train and data.validation."
    )
    decode_workers: int | None = setting(
        None, "none", description="Decoding processes in all; null: one per CPU of the cluster.", ge=1
    )
    decode_timeout_seconds: float = setting(60.0, "none", description="A file that takes longer is quarantined.", gt=0)

    @model_validator(mode="after")
    def _overlaps_of_tests(self) -> DataSection:
        names = sorted({entry.name for entry in self.test})
        if unknown := [name for name in self.allow_overlap if name not in names]:
            known = ", ".join(names) or "nothing"
            raise ValueError(
                f"allow_overlap: no dataset of data.test is named {', '.join(unknown)}. Named there: {known}"
            )
        return self
