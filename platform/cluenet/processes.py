"""Worker processes that may hang, die or eat memory: calls with a time and a memory limit, in a pool that repairs itself. Thread-safe.

Arrays that a call returns come back through memory that the processes share, as far as it has room.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pebble import ProcessPool

from cluenet.shared_slots import Packed, SharedSlots

SLOTS_PER_WORKER = 2
"""Calls of a worker whose arrays come back through shared memory, one under way and the next. Those of further ones are piped."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MALLOC = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25}
"""Bytes, for mallopt(3)."""


@dataclass(frozen=True)
class Call:
    """One that a worker makes, or will. value: what the function returned or raised."""

    pool: ProcessPool
    value: Future[Any]


class WorkerPool:
    """`result(submit(...))`. recycle_after: calls after which a process is replaced. memory_gib: most memory of one process
    (Linux). initializer: called in every process.

    Raises RuntimeError inside a daemonic process (a worker of multiprocessing.Pool), which may not have children.
    """

    def __init__(
        self, workers: int, *, recycle_after: int, memory_gib: float | None,
        initializer: Callable[..., None] | None = None, initargs: Sequence[Any] = (),
    ):  # fmt: skip
        if multiprocessing.current_process().daemon:
            raise RuntimeError("worker processes cannot be started from a daemonic process; start them elsewhere")
        self._workers, self._recycle_after = workers, recycle_after
        self._start = (initializer, tuple(initargs), memory_gib)
        self._repairing = threading.Lock()
        self._made = self._new_pool()

    def submit(self, function: Callable[..., Any], args: Sequence[Any], *, timeout_seconds: float) -> Call | None:
        """The time counts from when a process starts on it. None: the pool broke down, which `result` reports and repairs."""
        pool, slots = self._made  # at once: another thread may repair it
        slot = slots.take()
        try:
            ending = pool.schedule(_call, args=(function, args, slot), timeout=timeout_seconds)
        except BaseException as error:
            slots.free(slot)
            if isinstance(error, RuntimeError):
                return None
            raise
        call = Call(pool, Future())
        ending.add_done_callback(lambda ended: _hand_over(ended, call.value, slots, slot))
        return call

    def result(self, call: Call | None) -> Any:
        """What the function returned or raised.

        Raises also TimeoutError, pebble.ProcessExpired where the process died, BrokenProcessPool (after repairing it),
        MemoryError where the process has too little to hand it over.
        """
        while call is not None and not wait([call.value], timeout=1.0).done:
            if not call.pool.active:
                call = None  # it came too late to be told that the pool broke down
        try:
            if call is None:
                raise BrokenProcessPool("the pool of worker processes broke down")
            return call.value.result()
        except BrokenProcessPool:
            self._repair()
            raise

    def _repair(self) -> None:
        with self._repairing:
            if not self._made[0].active:
                self.close()
                self._made = self._new_pool()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        pool, _ = self._made
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()

    def _new_pool(self) -> tuple[ProcessPool, SharedSlots]:
        """spawn: a fork of a process with threads (Ray's) can hang. A broken pool's slots are not used again."""
        slots = SharedSlots(SLOTS_PER_WORKER * self._workers)
        pool = ProcessPool(
            max_workers=self._workers, max_tasks=self._recycle_after, context=multiprocessing.get_context("spawn"),
            initializer=_start_worker, initargs=(slots, *self._start),
        )  # fmt: skip
        return pool, slots


def _hand_over(ended: Future[Any], value: Future[Any], slots: SharedSlots, slot: int | None) -> None:
    """Arrays are copied out of their slot, which is free then: the process has written them, or is gone."""
    found = error = None
    try:
        error = ended.exception()
        found = None if error is not None else slots.unpack(ended.result())
    except BaseException as other:
        error = other
    slots.free(slot)
    if error is not None:
        value.set_exception(error)
    else:
        value.set_result(found)


# ------------------------------------------------------------------------------------------------- in the worker

_slots: SharedSlots


def _start_worker(
    slots: SharedSlots, initializer: Callable[..., None] | None, initargs: Sequence[Any], memory_gib: float | None
) -> None:
    global _slots
    _slots = slots
    _keep_freed_memory()
    if initializer is not None:
        initializer(*initargs)
    if memory_gib is not None:
        _limit_memory(int(memory_gib * 2**30))


def _call(function: Callable[..., Any], args: Sequence[Any], slot: int | None) -> Packed:
    return _slots.pack(function(*args), slot)


def _keep_freed_memory() -> None:
    """Where it can be said (glibc): a large array that is freed does not go back to the system, which would hand out each of its
    pages anew, empty, for the next one. A process is replaced before long."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, num_bytes in MALLOC.items():
            mallopt(parameter, num_bytes)


def _limit_memory(num_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, num_bytes))
