"""Key-value caches of a pass. Gradient checkpointing runs a layer twice, and a cache that grows would grow twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
