"""Memory that a process shares with the workers it starts, in slots: arrays come back through it instead of through a pipe."""

from __future__ import annotations

import ctypes
import pickle
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Packed:
    """A value, pickled without the arrays that lie one after the other in a slot."""

    pickled: bytes
    slot: int
    array_bytes: tuple[int, ...]


class SharedSlots:
    """`count` slots of `slot_bytes`, free at first. A worker gets them as it starts; `take` and `free` are its parent's.

    What does not fit a slot stays in the pickle. Nothing has a name, so nothing is left when a process is killed.
    """

    def __init__(self, count: int, slot_bytes: int, context: BaseContext):
        self._slot_bytes, self._free = slot_bytes, list(range(count))
        self._memory = context.RawArray(ctypes.c_ubyte, count * slot_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_free": []}

    def take(self) -> int | None:
        """A slot, which is the caller's until `free`; None where all are taken. Thread-safe, as `free` is."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def pack(self, value: Any, slot: int) -> Packed:
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
        """The value, with arrays of its own, writable as they were."""
        room, arrays = self._bytes_of(packed.slot), []
        for num_bytes in packed.array_bytes:
            arrays.append(np.array(room[:num_bytes], np.uint8))
            room = room[num_bytes:]
        return pickle.loads(packed.pickled, buffers=arrays)

    def _bytes_of(self, slot: int) -> memoryview:
        start = slot * self._slot_bytes
        return memoryview(np.frombuffer(self._memory, np.uint8))[start : start + self._slot_bytes]
