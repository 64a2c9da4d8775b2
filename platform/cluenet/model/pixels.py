"""Frames as a family's vision tower takes them: resized, normalised, laid out. What Hugging Face's video processors do,
without torchvision, which those need: bit for bit the same on CPU (docs/backbones.md says how that was checked).

Means, deviations and sizes are the checkpoint's own, from the files that `AutoVideoProcessor` reads, in its order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.grid import Grid

Size = tuple[int, int]
Settings = Mapping[str, Any]

PROCESSOR_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
UNLIMITED = 2**62
HIGHEST_EDGE = 4096
NOT_DONE_HERE = {"do_resize": (True,), "do_rescale": (True,), "do_normalize": (True,), "rescale_factor": (1 / 255,),
                 "do_center_crop": (False,), "cap_pixels_per_frame": (False,)}  # fmt: skip
"""Settings that some processors have, and the only values that are implemented."""


def video_settings(files: Mapping[str, Settings]) -> Settings:
    """The settings for videos among a checkpoint's processor files, keyed by file name; empty where there are none."""
    nested = files.get("processor_config.json", {}).get("video_processor")
    return nested or next((files[name] for name in PROCESSOR_FILES[1:] if name in files), {})


@dataclass(frozen=True)
class Patches:
    """How a family's tower cuts videos up, from `vision_config` of config.json."""

    patch: int  # side of a patch in pixels
    merge: int = 1  # side of a visual token in patches
    temporal: int = 1  # frames of a temporal block
    side: int | None = None  # of a frame in pixels, where the tower takes one size only


@dataclass(frozen=True)
class VideoProcessor:
    """Made by `video_processor`. `resize`: takes a uint8 video [T, C, H, W] and its size (height, width)."""

    patches: Patches
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Callable[[int, int, int], Size]  # (frames, height, width) -> size in pixels
    resize: Callable[[Tensor, Size], Tensor]
    whole_frames: bool  # [T, C, H, W] for the tower, else patches in Qwen's order

    def grid(self, frames_THWC: np.ndarray, seconds_T: np.ndarray) -> Grid:
        cut, (count, height, width, _) = self.patches, frames_THWC.shape
        size = self.fit(count, height, width)
        rows, cols = (math.ceil(edge // cut.patch / cut.merge) for edge in size)
        blocks = self._whole_blocks(seconds_T).reshape(-1, cut.temporal)
        step = (float(seconds_T[-1]) - float(seconds_T[0])) / max(1, count - 1)
        return Grid(len(blocks), rows, cols, tuple(float(block.mean()) for block in blocks), step * cut.temporal)

    def cut(self, frames_THWC: np.ndarray) -> Tensor:
        """Frames resized and laid out, uint8: [T, C, H, W], or [patches, C * temporal * patch * patch]."""
        count, height, width, _ = frames_THWC.shape
        x = torch.from_numpy(self._whole_blocks(np.asarray(frames_THWC))).permute(0, 3, 1, 2)
        x = self.resize(x.contiguous(), self.fit(count, height, width))
        return x if self.whole_frames else self._patches(x)

    def normalised(self, cut: Tensor) -> Tensor:
        """What `cut` made, in float32, where it lies. Rescaling and normalisation in one, as the HF processors do."""
        mean, std = (torch.tensor(v, device=cut.device) * 255 for v in (self.mean, self.std))
        channels = cut if self.whole_frames else cut.unflatten(-1, (3, -1))
        shape = (1, 3, 1, 1) if self.whole_frames else (1, 3, 1)
        return ((channels.float() - mean.view(shape)) / std.view(shape)).view(cut.shape)

    def pixels(self, frames_THWC: np.ndarray) -> Tensor:
        """Frames as the vision tower takes them, float32, laid out as `cut` says."""
        return self.normalised(self.cut(frames_THWC))

    def patch_grid(self, grids: Sequence[Grid]) -> Tensor:
        """[B, 3] temporal blocks, rows and columns of patches that the tower gets of every clip."""
        if self.patches.side is not None:
            side = self.patches.side // self.patches.patch
            return torch.tensor([[g.blocks, side, side] for g in grids])
        return torch.tensor([[g.blocks, g.rows * self.patches.merge, g.cols * self.patches.merge] for g in grids])

    def _whole_blocks(self, values: np.ndarray) -> np.ndarray:
        """The last frame again, until the last block is full."""
        missing = -len(values) % self.patches.temporal
        return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])

    def _patches(self, x_TCHW: Tensor) -> Tensor:
        """In Qwen's order: the patches of a visual token stand together; channels before time before y, x."""
        (count, _, height, width), cut = x_TCHW.shape, self.patches
        t, m, p = cut.temporal, cut.merge, cut.patch
        x = x_TCHW.reshape(count // t, t, 3, height // (m * p), m, p, width // (m * p), m, p)
        return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * t * p * p)


# ----------------------------------------------------------------------------------------------------- sizes


def per_frame_budget(settings: Settings, patches: Patches) -> Callable[[int, int, int], Size]:
    """Whole visual tokens, with so many pixels per frame as the checkpoint allows: Qwen2.5-VL."""
    least, most = _pixel_limits(settings)
    step = patches.patch * patches.merge
    return lambda count, height, width: _smart_resize(1, height, width, step, least, most)


def per_video_budget(settings: Settings, patches: Patches) -> Callable[[int, int, int], Size]:
    """Whole visual tokens, with so many pixels in all frames together as the checkpoint allows: Qwen3-VL."""
    least, most = _pixel_limits(settings)
    step, temporal = patches.patch * patches.merge, patches.temporal

    def fit(count: int, height: int, width: int) -> Size:
        grow = max(1, step / height, step / width)
        height, width, count = int(height * grow), int(width * grow), max(count, temporal)
        return _smart_resize(count, height, width, step, least, most, rounded=round(count / temporal) * temporal)

    return fit


def _smart_resize(
    count: int, height: int, width: int, step: int, least: int, most: int, *, rounded: int | None = None
) -> Size:
    """Multiples of `step` near (height, width) with `rounded` (or `count`) times their product in least..most."""
    rows, cols = round(height / step), round(width / step)
    volume = (rounded or count) * rows * cols * step**2
    if volume > most:
        scale = math.sqrt(count * height * width / most)
        rows, cols = (max(1, math.floor(edge / scale / step)) for edge in (height, width))
    elif volume < least:
        scale = math.sqrt(least / (count * height * width))
        rows, cols = (math.ceil(edge * scale / step) for edge in (height, width))
    return rows * step, cols * step


def _pixel_limits(settings: Settings) -> Size:
    """Least and most pixels; without a statement of the checkpoint none (folders of `tiny` from older versions)."""
    size = settings.get("size") or {}
    least = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels") or 1
    most = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels") or UNLIMITED
    return least, most


def square(settings: Settings, patches: Patches) -> Callable[[int, int, int], Size]:
    """One size for all frames: LLaVA-OneVision, InternVL, SmolVLM."""
    return lambda count, height, width: (patches.side, patches.side)


# -------------------------------------------------------------------------------------------------- resizing


def bicubic(settings: Settings) -> Callable[[Tensor, Size], Tensor]:
    return lambda x, size: _interpolate(x, size, "bicubic")


def lanczos_twice(settings: Settings) -> Callable[[Tensor, Size], Tensor]:
    """First the longer edge to the video's size, in proportion, then to a square: SmolVLM."""
    longest = min(HIGHEST_EDGE, longest_edge(settings))

    def resize(x: Tensor, size: Size) -> Tensor:
        height, width = x.shape[-2:]
        wide = width >= height
        shorter = int(longest / (width / height)) if wide else int(longest * (width / height))
        shorter = max(1, shorter + shorter % 2)
        return _interpolate(
            _interpolate(x, (shorter, longest) if wide else (longest, shorter), "lanczos"), size, "lanczos"
        )

    return resize


def longest_edge(settings: Settings) -> int:
    """Of a frame before it is made square. `size` stands above `video_sampling`, as in the HF processor.

    Raises KeyError where the checkpoint does not say."""
    size = settings.get("size") or settings["video_sampling"]["video_size"]
    return size["longest_edge"]


def _interpolate(x_TCHW: Tensor, size: Size, mode: str) -> Tensor:
    """On uint8, as torchvision does."""
    if tuple(x_TCHW.shape[-2:]) == size:
        return x_TCHW
    return F.interpolate(x_TCHW, size=size, mode=mode, antialias=True, align_corners=False)
