"""What differs between Hugging Face multimodal families, one table row each; everything else is shared in `vlm.py`.

docs/backbones.md says how to add one and how it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE as SMOLVLM_VIDEO_TEMPLATE

from cluenet.model import pixels, video_text, vision
from cluenet.model.grid import Grid
from cluenet.model.pixels import Patches, Settings, Size
from cluenet.model.video_text import VideoText


@dataclass(frozen=True)
class Family:
    """Paths of modules are attributes of the whole model."""

    # the model
    text: str  # the decoder stack
    tower: str  # the vision tower
    projector: str  # what turns states of the vision tower into embeddings of the decoder
    matrices: tuple[str, ...]  # where hidden matrices of the vision part are, beginnings of parameter names
    placeholder: str  # config field with the token id that stands for a visual token
    # pixels
    cut: Callable[[Any], Patches]  # from config.json
    fit: Callable[[Settings, Patches], Callable[[int, int, int], Size]]
    resize: Callable[[Settings], Callable[[Tensor, Size], Tensor]]
    side: Callable[[Settings], int] | None  # of the only size the tower takes, in the processor's words
    # from pixels to embeddings
    look: Callable[[Any, Tensor, Tensor], None]
    # the prompt
    tokens: tuple[str, ...]  # that the tokenizer must have whole
    media_marks: tuple[str, ...]  # strings of the chat template that stand for the video
    label: Callable[[int, float], str]
    video_text: Callable[[Grid, Sequence[str]], VideoText]
    # what most do not have
    patches: bool = False  # the tower takes patches of all clips in a row, else whole frames
    multimodal_rope: bool = False  # positions on three axes
    deepstack: str | None = None  # projectors of lower tower layers
    ordered: Callable[[Any, Tensor, Tensor], Tensor] = vision.as_it_is
    finish: Callable[[Any, Tensor, Sequence[int]], Tensor] = vision.flat
    extra_tokens: int = 0  # placeholders behind a video that belong to no frame
    template: str | None = None  # for checkpoints whose own chat template has no place for a video


def _qwen_patches(config: Any) -> Patches:
    vision = config.vision_config
    return Patches(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)


def _frame_patches(merge: Callable[[Any], int]) -> Callable[[Any], Patches]:
    """`merge`: patches along the side of a visual token, from the config."""

    def cut(config: Any) -> Patches:
        vision = config.vision_config
        return Patches(_first(vision.patch_size), merge(config), side=_first(vision.image_size))

    return cut


def _first(value: Any) -> int:
    """InternVL writes (height, width)."""
    return value if isinstance(value, int) else value[0]


def _height(settings: Settings) -> int:
    return settings["size"]["height"]


_QWEN = {
    "text": "model.language_model",
    "tower": "model.visual",
    "projector": "model.visual.merger",
    "matrices": ("model.visual.blocks.", "model.visual.merger."),
    "placeholder": "video_token_id",
    "cut": _qwen_patches,
    "resize": pixels.bicubic,
    "side": None,
    "look": vision.look_with_grid,
    "tokens": ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>"),
    "media_marks": ("<|vision_start|><|video_pad|><|vision_end|>",),
    "patches": True,
    "multimodal_rope": True,
}

FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": Family(
        **_QWEN,
        fit=pixels.per_frame_budget,
        label=video_text.no_label,
        video_text=video_text.qwen2_5_vl,
        ordered=vision.out_of_windows,
    ),
    "qwen3_vl": Family(
        **_QWEN,
        fit=pixels.per_video_budget,
        label=video_text.seconds_label,
        video_text=video_text.qwen3_vl,
        deepstack="model.visual.deepstack_merger_list",
    ),
    "llava_onevision": Family(
        text="model.language_model",
        tower="model.vision_tower",
        projector="model.multi_modal_projector",
        matrices=("model.vision_tower.encoder.layers.", "model.multi_modal_projector."),
        placeholder="video_token_id",
        cut=_frame_patches(lambda config: 2),
        fit=pixels.square,
        resize=pixels.bicubic,
        side=_height,
        look=vision.look_at_video,
        tokens=("<video>",),
        media_marks=("<video>",),
        label=video_text.no_label,
        video_text=video_text.llava_onevision,
        finish=vision.pooled_with_newline,
        extra_tokens=1,
    ),
    "internvl": Family(
        text="model.language_model",
        tower="model.vision_tower",
        projector="model.multi_modal_projector",
        matrices=("model.vision_tower.encoder.layer.", "model.multi_modal_projector."),
        placeholder="image_token_id",
        cut=_frame_patches(lambda config: round(1 / config.downsample_ratio)),
        fit=pixels.square,
        resize=pixels.bicubic,
        side=_height,
        look=vision.look_at_images,
        tokens=("<img>", "</img>", "<IMG_CONTEXT>"),
        media_marks=("<video>",),
        label=video_text.frame_label,
        video_text=video_text.internvl,
    ),
    "smolvlm": Family(
        text="model.text_model",
        tower="model.vision_model",
        projector="model.connector",
        matrices=("model.vision_model.encoder.layers.", "model.connector."),
        placeholder="image_token_id",
        cut=_frame_patches(lambda config: config.scale_factor),
        fit=pixels.square,
        resize=pixels.lanczos_twice,
        side=lambda settings: settings["max_image_size"]["longest_edge"],
        look=vision.look_without_padding,
        tokens=("<fake_token_around_image>", "<global-img>", "<image>"),
        media_marks=("<video>",),
        label=video_text.clock_label,
        video_text=video_text.smolvlm,
        template=SMOLVLM_VIDEO_TEMPLATE,
    ),
}
"""Keyed by `model_type` of the checkpoint's config.json."""
