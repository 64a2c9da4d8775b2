"""What a prompt says in a video's place, per family, as the Hugging Face processors write it (Qwen3-VL: as the processor of
4.57 did; that of 5.23 leaves a second pair of vision marks around the video).

A label names a temporal block: the family's own, or `<t0>`, `<t1>` .. for models that count blocks instead of seconds
(`cluenet_time_labels: index` in config.json). Families whose prompts name no times have empty labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cluenet.model.grid import Grid


@dataclass(frozen=True)
class VideoText:
    before: str
    blocks: tuple[str, ...]
    after: str

    def __str__(self) -> str:
        return "".join((self.before, *self.blocks, self.after))


def time_label(index: int) -> str:
    """The word that names temporal block `index` in prompts of models that count blocks instead of seconds."""
    return f"<t{index}>"


# ---------------------------------------------------------------------------- labels: (block, its middle in seconds)


def no_label(block: int, seconds: float) -> str:
    return ""


def seconds_label(block: int, seconds: float) -> str:
    return f"<{seconds:.1f} seconds>"


def frame_label(block: int, seconds: float) -> str:
    return f"Frame{block + 1}"


def clock_label(block: int, seconds: float) -> str:
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


# ------------------------------------------------------------------------------------------------ text of a video


def qwen2_5_vl(grid: Grid, labels: Sequence[str]) -> VideoText:
    """One run of placeholders; with labels, which only our own models have, a run for each."""
    if any(labels):
        return qwen3_vl(grid, labels)
    pads = "<|video_pad|>" * grid.per_block
    return VideoText("<|vision_start|>", (pads,) * grid.blocks, "<|vision_end|>")


def qwen3_vl(grid: Grid, labels: Sequence[str]) -> VideoText:
    pads = "<|video_pad|>" * grid.per_block
    return VideoText("", tuple(f"{label}<|vision_start|>{pads}<|vision_end|>" for label in labels), "")


def llava_onevision(grid: Grid, labels: Sequence[str]) -> VideoText:
    """The placeholder at the end stands for the newline of the whole video."""
    return VideoText("", tuple(label + "<video>" * grid.per_block for label in labels), "<video>")


def internvl(grid: Grid, labels: Sequence[str]) -> VideoText:
    frames = [f"{label}: <img>{'<IMG_CONTEXT>' * grid.per_block}</img>" for label in labels]
    return VideoText("", (frames[0], *(f"\n{frame}" for frame in frames[1:])), "")


def smolvlm(grid: Grid, labels: Sequence[str]) -> VideoText:
    from num2words import num2words  # no other family needs it

    duration = timedelta(seconds=int(grid.end_seconds))
    before = (
        f"You are provided the following series of {num2words(grid.blocks)} frames from a {duration} [H:MM:SS] video.\n"
    )
    images = f"<fake_token_around_image><global-img>{'<image>' * grid.per_block}<fake_token_around_image>"
    return VideoText(before, tuple(f"\nFrame from {label}:{images}" for label in labels), "\n\n")
