"""Key-value caches of a pass. Gradient checkpointing runs a layer twice, and a cache that grows would grow twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, cat
from transformers import Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

KeysValues = Sequence[tuple[Tensor, Tensor]]
"""Per layer: keys and values [B, heads, rows, head width]."""


def growing(config: PretrainedConfig, before: KeysValues) -> DynamicCache:
    """On top of `before`; what passes add stays in it, for the passes after them."""
    cache = DynamicCache(config=config)
    for index, (keys, values) in enumerate(before):
        cache.update(keys, values, index)
    return cache


def replayable(layers: int, before: KeysValues) -> Cache:
    """On top of `before`, for one pass through `layers` decoder layers, of which backward may repeat any."""
    return Cache(layers=[_Replayable(*before[index : index + 1]) for index in range(layers)])


class _Replayable(DynamicLayer):
    """`update` gives the same each time it is called with the same rows. Rows on top of others are not kept: a pass that is
    to be remembered starts from nothing."""

    def __init__(self, before: tuple[Tensor, Tensor] | None = None):
        super().__init__()
        self.before = before

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.before is None:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            return key_states, value_states
        keys, values = self.before
        return cat([keys, key_states], dim=-2), cat([values, value_states], dim=-2)

    def get_seq_length(self) -> int:
        return 0 if self.before is None else self.before[0].shape[-2]


class Roomy(Cache):
    """On top of `before`, with `room` for more columns, which passes of L `rows` fill in place, at `next_L`: nothing is copied for a
    column that is added, and no tensor moves or changes its shape."""

    def __init__(self, before: KeysValues, *, room: int, rows: int):
        keys, _ = before[0]
        self.filled = keys.shape[-2]  # columns that are taken
        self.capacity = self.filled + room
        self.next_L = torch.arange(rows, device=keys.device) + self.filled
        super().__init__(layers=[_RoomyLayer(self, *(_widened(part, room) for part in pair)) for pair in before])

    def taken(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the columns that are taken."""
        return [(layer.keys[:, :, : self.filled], layer.values[:, :, : self.filled]) for layer in self.layers]


class _RoomyLayer(DynamicLayer):
    def __init__(self, cache: Roomy, keys: Tensor, values: Tensor):
        super().__init__()
        self.cache, self.keys, self.values, self.is_initialized = cache, keys, values, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.cache.next_L, key_states)
        self.values.index_copy_(2, self.cache.next_L, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.cache.filled


def _widened(states_BHCW: Tensor, room: int) -> Tensor:
    """The same with zeros behind: attention multiplies what is not seen with zero, so it must be a number."""
    batch, heads, columns, width = states_BHCW.shape
    wide = states_BHCW.new_zeros(batch, heads, columns + room, width)
    wide[:, :, :columns] = states_BHCW
    return wide
