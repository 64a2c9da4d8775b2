"""Memory that a process shares with the workers it starts, in slots: arrays come back through it instead of through a pipe."""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from dataclasses import dataclass
from multiprocessing.heap import Arena
from typing import Any

import numpy as np

SLOT_BYTES = 2**26
"""Of addresses: there is memory only behind what was written."""
KEPT_BYTES = 2**24
"""Memory that a slot keeps for its next arrays; what more it had goes back to the system."""


@dataclass(frozen=True)
class Packed:
    """A value, pickled without the arrays that lie one after the other in a slot."""

    pickled: bytes
    slot: int | None
    array_bytes: tuple[int, ...] = ()


class SharedSlots:
    """`count` slots, free at first; none where the system is not Linux. A worker gets them as it starts; `take`, `free` and
    `unpack` are its parent's.

    What finds no room stays in the pickle. The memory has no name and is in no folder, so that nothing is left when a process is
    killed, and a small /dev/shm does not matter.
    """

    def __init__(self, count: int):
        self._arena = _shared(count * SLOT_BYTES) if hasattr(os, "memfd_create") else None
        self._free = list(range(count)) if self._arena else []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_free": []}

    def take(self) -> int | None:
        """A slot, which is the caller's until `free`; None where all are taken. Thread-safe, as `free` is."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def free(self, slot: int | None) -> None:
        if slot is not None:
            self._free.append(slot)

    def pack(self, value: Any, slot: int | None) -> Packed:
        """In a worker, into the slot that its parent took for it."""
        room, sizes = self._bytes_of(slot), []

        def stays(buffer: pickle.PickleBuffer) -> bool:
            nonlocal room
            with buffer.raw() as raw:
                if raw.nbytes > room.nbytes:
                    return True
                room[: raw.nbytes] = raw
                room = room[raw.nbytes :]
                sizes.append(raw.nbytes)
            return False

        return Packed(pickle.dumps(value, protocol=5, buffer_callback=stays), slot, tuple(sizes))

    def unpack(self, packed: Packed) -> Any:
        """The value, with arrays of its own, which are writable where they were."""
        room, arrays = self._bytes_of(packed.slot), []
        for num_bytes in packed.array_bytes:
            arrays.append(np.array(room[:num_bytes], np.uint8))
            room = room[num_bytes:]
        self._shrink(packed)
        return pickle.loads(packed.pickled, buffers=arrays)

    def _shrink(self, packed: Packed) -> None:
        used = sum(packed.array_bytes)
        if self._arena and packed.slot is not None and used > KEPT_BYTES:
            first = packed.slot * SLOT_BYTES + KEPT_BYTES
            self._arena.buffer.madvise(mmap.MADV_REMOVE, first, used - KEPT_BYTES)

    def _bytes_of(self, slot: int | None) -> memoryview:
        if self._arena is None or slot is None:
            return memoryview(b"")
        return memoryview(self._arena.buffer)[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES]


def _shared(num_bytes: int) -> Arena:
    """Of multiprocessing, which hands it to the processes that are started; in a file that is in no folder."""
    file = os.memfd_create("cluenet")
    os.ftruncate(file, num_bytes)
    arena = Arena(num_bytes, file)
    weakref.finalize(arena, os.close, file)
    return arena
