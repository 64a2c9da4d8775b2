"""What differs between Hugging Face multimodal families, one table row each; everything else is shared in `vlm.py`.

To add a family: a row here, and a line of `docs/add_a_component.md` says how it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    text: str  # attribute path of the decoder stack, from the top model
    tower: str  # attribute path of the vision tower
    placeholder: str  # config field with the token id that stands for a visual token
    mean: tuple[float, float, float]  # used when the folder has no preprocessor_config.json
    std: tuple[float, float, float]
    video_prompt: Callable[[Sequence[str], int], str]  # (label of every temporal block, visual tokens per block)
    media_marks: tuple[str, ...]  # strings of the chat template that stand for the video


def _qwen3(labels: Sequence[str], tokens_per_block: int) -> str:
    pads = "<|video_pad|>" * tokens_per_block
    return "".join(f"{label}<|vision_start|>{pads}<|vision_end|>" for label in labels)


HALF = (0.5, 0.5, 0.5)

FAMILIES: dict[str, Family] = {
    "qwen3_vl": Family(
        text="model.language_model",
        tower="model.visual",
        placeholder="video_token_id",
        mean=HALF,
        std=HALF,
        video_prompt=_qwen3,
        media_marks=("<|vision_start|><|video_pad|><|vision_end|>",),
    ),
}
"""Keyed by `model_type` of the checkpoint's config.json."""
