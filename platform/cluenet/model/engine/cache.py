"""A cache with a budget in bytes: what was used longest ago goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class CacheStats:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0
    entries: int = 0


class ByteCache(Generic[Value]):
    """Least recently used values within `budget` bytes. A value larger than the budget is not kept. Thread-safe."""

    def __init__(self, budget: int, size_of: Callable[[Value], int]):
        self.budget, self._size_of = budget, size_of
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.stats = CacheStats()

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            if key not in self._values:
                self.stats.misses += 1
                return None
            self.stats.hits += 1
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Value) -> None:
        size = self._size_of(value)
        with self._lock:
            self._drop(key)
            if size > self.budget:
                return
            while self.stats.bytes + size > self.budget:
                self._drop(next(iter(self._values)))
                self.stats.evictions += 1
            self._values[key] = (value, size)
            self.stats.bytes += size
            self.stats.entries += 1

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self.stats.bytes -= self._values.pop(key)[1]
            self.stats.entries -= 1

    def __contains__(self, key: Hashable) -> bool:
        """Without counting as a use."""
        with self._lock:
            return key in self._values

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
            self.stats.bytes = self.stats.entries = 0
