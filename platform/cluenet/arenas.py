"""Arrays from worker processes by shared memory. A pipe copies them four times, and both ends wait for each other meanwhile.

Its maker owns a block: reads it, uses it again, removes it. Workers open it by name and write. Where there is no room for a
block (/dev/shm of a container may be small) there is none, and arrays go through the pipe.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

SHARED = Path("/dev/shm")


@dataclass(frozen=True)
class Place:
    """Where an array of bytes lies in a block."""

    offset: int
    shape: tuple[int, ...]


class Arena:
    """One block. Raises OSError where there is no room for it."""

    def __init__(self, num_bytes: int):
        self._memory = SharedMemory(create=True, size=num_bytes)
        try:
            with (SHARED / self.name).open("r+b") as file:  # else writing to a full /dev/shm would end the process
                os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._memory.name.lstrip("/")

    def copy(self, place: Place) -> np.ndarray:
        """uint8."""
        flat = np.frombuffer(self._memory.buf, np.uint8, prod(place.shape), place.offset)
        return flat.reshape(place.shape).copy()

    def close(self) -> None:
        """Removes the block. A worker that still writes to it does no harm."""
        self._memory.close()
        with suppress(FileNotFoundError):
            self._memory.unlink()


class Arenas:
    """Blocks of `num_bytes` each, at most `count` at a time. Thread-safe."""

    def __init__(self, count: int, num_bytes: int):
        self._num_bytes, self._free, self._made = num_bytes, deque([None] * count), set[Arena]()

    def take(self) -> Arena | None:
        """None where all are taken, or there is no room."""
        try:
            arena = self._free.popleft()
        except IndexError:
            return None
        if arena is None:
            try:
                arena = Arena(self._num_bytes)
            except OSError:
                self._free.append(None)  # there may be room another time
                return None
            self._made.add(arena)
        return arena

    def give_back(self, arena: Arena | None, *, spoilt: bool = False) -> None:
        """`spoilt`: somebody may still write to it, so that it must not be used again."""
        if arena is None:
            return
        if spoilt:
            self._made.discard(arena)
            arena.close()
        self._free.append(None if spoilt else arena)

    def close(self) -> None:
        """Removes all."""
        for arena in self._made:
            arena.close()
        self._made.clear()
        self._free.clear()


class Writer:
    """A worker's end of a block: arrays one behind the other, as long as there is room. Use it in a `with` block."""

    def __init__(self, name: str | None):
        """None: there is no block, and nothing fits."""
        self._memory, self._used = None if name is None else SharedMemory(name), 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._memory is not None:
            self._memory.close()

    def put(self, array: np.ndarray) -> Place | None:
        """uint8; None where it does not fit."""
        if self._memory is None or self._used + array.size > self._memory.size:
            return None
        place = Place(self._used, array.shape)
        np.frombuffer(self._memory.buf, np.uint8, array.size, self._used).reshape(array.shape)[...] = array
        self._used += array.size
        return place
