"""The sizes that memory and operations follow from, read off a model's modules, which the meta device has too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from inspect import signature
from operator import attrgetter
from typing import Any

from torch import nn

from cluenet.model.tuning import part_of
from cluenet.model.vlm import VisionLanguageModel


@dataclass(frozen=True)
class Block:
    """One transformer block, of the decoder or of the vision tower."""

    width: int
    query: int  # features of all query heads
    key: int  # features of all key heads; fewer than `query` with grouped-query attention
    heads: int
    inner: int  # features inside the MLP
    gated: bool  # MLP of three matrices (SwiGLU), else of two
    rms: bool  # RMSNorm, else LayerNorm
    fused: bool  # one matrix makes query, key and value
    qk_norm: bool
    scaled: bool  # each branch is multiplied by a learned scale
    rotary: bool  # queries and keys are turned by angles

    @property
    def matrix_parameters(self) -> int:
        """Of its matrices: every token is multiplied by all of them."""
        attention = self.width * (self.query + 2 * self.key) + self.query * self.width
        return attention + (3 if self.gated else 2) * self.width * self.inner


@dataclass(frozen=True)
class Sizes:
    """Of a multimodal language model."""

    decoder: Block
    layers: int
    vocabulary: int
    vision: Block
    vision_layers: int
    window: tuple[int, int] | None  # (patches in a window of the tower's attention, layers without windows)
    patch_values: int  # inputs of the patch embedding
    projector: tuple[tuple[int, int], ...]  # (inputs, outputs) of each of its matrices

    @property
    def projector_parameters(self) -> int:
        return sum(rows * columns for rows, columns in self.projector)

    def vision_columns(self, frame: int) -> int:
        """How many of a frame's patches a patch looks at, on average over the layers."""
        if self.window is None or frame <= self.window[0]:
            return frame
        inside, whole = self.window
        return (inside * (self.vision_layers - whole) + frame * whole) // self.vision_layers

    def projector_rows(self, patches: int) -> int:
        """How many vectors its matrices see: it groups what the tower states of `patches`."""
        return round(patches * self.vision.width / self.projector[0][0]) if self.projector else 0


def sizes_of(vlm: VisionLanguageModel) -> Sizes:
    """Of a model without adapters, which would change its modules."""
    config, tower = vlm.config, attrgetter(vlm.family.tower)(vlm.hf)
    blocks = _blocks(tower)
    vision, first_layer = config.vision_config, attrgetter(f"{vlm.family.text}.layers")(vlm.hf)[0]
    heads = getattr(vision, "num_heads", None) or vision.num_attention_heads
    return Sizes(
        decoder=_block(first_layer, config.text_config.num_attention_heads), layers=vlm.layers,
        vocabulary=len(vlm.embeddings_VD), vision=_block(blocks[0], heads), vision_layers=len(blocks),
        window=_window(vision), patch_values=_patch_values(tower), projector=tuple(
            (linear.in_features, linear.out_features)
            for name, linear in vlm.hf.named_modules() if isinstance(linear, nn.Linear) and part_of(name + ".", vlm.family) == "projector"
        ),
    )  # fmt: skip


def _blocks(tower: nn.Module) -> nn.ModuleList:
    """The tower's list of transformer blocks; a block has four matrices at least, a merger two."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    return next(one for one in lists if len(_linears(one[0])) >= 4)


def _linears(block: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def _block(block: nn.Module, heads: int) -> Block:
    linears = _linears(block)
    attention = {name: one for name, one in linears.items() if "mlp" not in name}
    mlp = [one for name, one in linears.items() if "mlp" in name]
    first, *rest = attention.values()
    fused = len(attention) == 2
    norms = [module for module in block.modules() if "norm" in type(module).__name__.lower()]
    return Block(
        width=first.in_features, query=first.out_features // 3 if fused else first.out_features,
        key=first.out_features // 3 if fused else rest[0].out_features, heads=heads, inner=mlp[0].out_features,
        gated=len(mlp) == 3, rms="RMS" in type(norms[0]).__name__, fused=fused, qk_norm=len(norms) > 2,
        scaled=any(True for _ in block.parameters(recurse=False)),
        rotary="position_embeddings" in signature(block.forward).parameters,
    )  # fmt: skip


def _window(vision: Any) -> tuple[int, int] | None:
    """(patches in a window, layers without windows) of a tower with windowed attention (Qwen2.5-VL)."""
    side, whole = getattr(vision, "window_size", None), getattr(vision, "fullatt_block_indexes", None)
    return None if not side or whole is None else ((side // vision.patch_size) ** 2, len(whole))


def _patch_values(tower: nn.Module) -> int:
    convolution = next(module for module in tower.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
    return convolution.in_channels * math.prod(convolution.kernel_size)
