"""Bytes that work holds, of Python's objects and of Arrow's buffers: the same on a busy machine, so that tests can pin them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Bytes:
    held: int  # by what the work returned
    peak: int  # at most while it ran, of Python's objects


def bytes_of(work: Callable[[], object]) -> Bytes:
    gc.collect()
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        kept = work()
        gc.collect()
        python, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = python + pa.total_allocated_bytes() - arrow
    del kept
    return Bytes(held, peak)


def bytes_per_row(work: Callable[[int], object], *sizes: int) -> Bytes:
    """What one more row costs, from the first size to the second. `work` is done once before, so that what is kept for good, such
    as imports, does not count."""
    first, second = sizes
    work(first)
    small, large = (bytes_of(lambda size=size: work(size)) for size in sizes)  # type: ignore[misc]
    return Bytes((large.held - small.held) // (second - first), (large.peak - small.peak) // (second - first))
