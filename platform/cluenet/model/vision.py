"""The way from pixels to embeddings of the decoder in two steps, so that the first, which is expensive and which nobody needs to
train, can be done once per clip: the tower, then the projector (merger, connector) behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from cluenet.model.grid import Grid
from cluenet.model.hooks import inputs_of
from cluenet.model.packing import Movable

if TYPE_CHECKING:
    from cluenet.model.families import Family


@dataclass
class TowerStates(Movable):
    """What the projector gets to see of a batch of clips. Rows are patches of Qwen's families, a visual token's together, and
    frames of the others; what else there is of a row stays with the family."""

    states: Tensor  # [rows of all clips, ..., D_tower]
    deepstack: list[Tensor]  # the same of the tower layers that feed lower decoder layers (DeepStack)
    rows: list[int]  # per clip

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.states.to(device), [level.to(device) for level in self.deepstack], self.rows)

    def clips(self) -> list[TowerStates]:
        """One by one."""
        parts = [self.states.split(self.rows), *(level.split(self.rows) for level in self.deepstack)]
        return [TowerStates(states, list(levels), [len(states)]) for states, *levels in zip(*parts, strict=True)]

    @classmethod
    def joined(cls, clips: Sequence[TowerStates]) -> TowerStates:
        """Inverse of `clips`."""
        levels = zip(*(clip.deepstack for clip in clips), strict=True)
        states, deepstack = torch.cat([clip.states for clip in clips]), [torch.cat(level) for level in levels]
        return cls(states, deepstack, [count for clip in clips for count in clip.rows])


@dataclass(frozen=True)
class EncodedClip:
    """A clip that the tower has looked at before: it stands in for the clip's frames."""

    grid: Grid
    tower: TowerStates  # of this clip alone


def tower_states(hf: nn.Module, family: Family, pixels: Tensor, grid_B3: Tensor) -> TowerStates:
    """grid_B3: patches of every clip: blocks, rows, columns."""
    projector = attrgetter(family.projector)(hf)
    levels = list(attrgetter(family.deepstack)(hf)) if family.deepstack else []
    with inputs_of([*levels, projector], stop_at=projector) as found:
        family.look(hf.model, pixels, grid_B3)
    *deepstack, states = found
    rows = grid_B3.prod(1) if family.patches else grid_B3[:, 0]
    return TowerStates(family.ordered(hf.model, states, grid_B3), deepstack, rows.tolist())


def projected(hf: nn.Module, family: Family, tower: TowerStates) -> tuple[Tensor, list[Tensor]]:
    """Embeddings [sum of N (and extra tokens), D] of all clips in order, and DeepStack inputs of the same shape."""
    levels = attrgetter(family.deepstack)(hf) if family.deepstack else ()
    embeds = attrgetter(family.projector)(hf)(tower.states)
    return family.finish(hf.model, embeds, tower.rows), [level(x) for level, x in zip(levels, tower.deepstack)]


# ------------------------------------------------------------------- per family: from pixels up to the projector
# `model` is `hf.model`, the multimodal model without its LM head.


def look_with_grid(model: Any, pixels: Tensor, grid_B3: Tensor) -> None:
    model.visual(pixels, grid_thw=grid_B3)


def look_at_video(model: Any, pixels: Tensor, grid_B3: Tensor) -> None:
    model.get_video_features(pixels[None])


def look_at_images(model: Any, pixels: Tensor, grid_B3: Tensor) -> None:
    model.get_image_features(pixels)


def look_without_padding(model: Any, pixels: Tensor, grid_B3: Tensor) -> None:
    """SmolVLM's own method drops frames whose normalised pixels are all zero, as if they were padding."""
    model.connector(model.vision_model(pixels).last_hidden_state)


# ----------------------------------------------------------------------- per family: the order of tower states


def as_it_is(model: Any, states: Tensor, grid_B3: Tensor) -> Tensor:
    return states


def out_of_windows(model: Any, states: Tensor, grid_B3: Tensor) -> Tensor:
    """Qwen2.5-VL sorts visual tokens by attention window; here a clip's stand together, in the order of the prompt."""
    visual, config = model.visual, model.visual.config
    index, _ = get_vision_window_index(grid_B3, config.spatial_merge_size, visual.window_size, config.patch_size)
    unit = visual.spatial_merge_unit
    return states.reshape(-1, unit, states.shape[-1])[index.argsort().to(states.device)].reshape(states.shape)


# --------------------------------------------------------------------------- per family: behind the projector


def flat(model: Any, embeds: Tensor, rows: Sequence[int]) -> Tensor:
    return embeds.reshape(-1, embeds.shape[-1])


def pooled_with_newline(model: Any, embeds_TSD: Tensor, rows: Sequence[int]) -> Tensor:
    """LLaVA-OneVision halves rows and columns, and ends every video with a learned newline."""
    videos = model.apply_pooling(embeds_TSD).split(list(rows))
    return torch.cat([part for video in videos for part in (video.flatten(0, 1), model.image_newline[None])])
