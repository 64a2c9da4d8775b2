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
from typing import Any

from pebble import ProcessPool

from cluenet.shared_slots import Packed, SharedSlots

SLOTS_PER_WORKER = 2
"""Calls of a worker whose arrays come back through shared memory, one under way and the next. Those of further ones are piped."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MALLOC = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25}
"""Bytes, for mallopt(3)."""


class WorkerPool:
    """`result(submit(...))`. recycle_after: calls after which a process is replaced. memory_gib: most memory of one process
    (Linux). result_bytes: of a result's arrays, usually; others are slower. initializer: called in every process.

    Raises RuntimeError inside a daemonic process (a worker of multiprocessing.Pool), which may not have children.
    """

    def __init__(
        self, workers: int, *, recycle_after: int, memory_gib: float | None, result_bytes: int = 0,
        initializer: Callable[..., None] | None = None, initargs: Sequence[Any] = (),
    ):  # fmt: skip
        if multiprocessing.current_process().daemon:
            raise RuntimeError("worker processes cannot be started from a daemonic process; start them elsewhere")
        self._workers, self._recycle_after, self._result_bytes = workers, recycle_after, result_bytes
        self._start = (initializer, tuple(initargs), memory_gib)
        self._repairing = threading.Lock()
        self._pool, self._slots = self._new_pool()

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], *, timeout_seconds: float
    ) -> Future[Any] | None:
        """The time counts from when a process starts on it. None: the pool broke down, which `result` reports and repairs."""
        pool, slots = self._pool, self._slots
        slot = slots.take()
        try:
            call = pool.schedule(_call, args=(function, args, slot), timeout=timeout_seconds)
        except RuntimeError:
            return None
        task: Future[Any] = Future()
        call.add_done_callback(lambda ended: _hand_over(ended, task, slots, slot))
        return task

    def result(self, task: Future[Any] | None) -> Any:
        """What the function returned or raised.

        Raises also TimeoutError, pebble.ProcessExpired where the process died, BrokenProcessPool (after repairing it).
        """
        while task is not None and not wait([task], timeout=1.0).done:
            if not self._pool.active:
                task = None  # it came too late to be told that the pool broke down
        try:
            if task is None:
                raise BrokenProcessPool("the pool of worker processes broke down")
            return task.result()
        except BrokenProcessPool:
            self._repair()
            raise

    def _repair(self) -> None:
        with self._repairing:
            if not self._pool.active:
                self.close()
                self._pool, self._slots = self._new_pool()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _new_pool(self) -> tuple[ProcessPool, SharedSlots]:
        """spawn: a fork of a process with threads (Ray's) can hang. A broken pool's slots are not used again."""
        context = multiprocessing.get_context("spawn")
        slots = SharedSlots(SLOTS_PER_WORKER * self._workers if self._result_bytes else 0, self._result_bytes, context)
        pool = ProcessPool(
            max_workers=self._workers, max_tasks=self._recycle_after, context=context,
            initializer=_start_worker, initargs=(slots, *self._start),
        )  # fmt: skip
        return pool, slots


def _hand_over(ended: Future[Any], task: Future[Any], slots: SharedSlots, slot: int | None) -> None:
    """What a call ended with, its arrays copied out of their slot, becomes what the task does."""
    try:
        value = ended.result()
        task.set_result(slots.unpack(value) if isinstance(value, Packed) else value)
    except BaseException as error:
        task.set_exception(error)
    finally:  # the process has written it, or is gone
        if slot is not None:
            slots.free(slot)


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


def _call(function: Callable[..., Any], args: Sequence[Any], slot: int | None) -> Any:
    value = function(*args)
    return value if slot is None else _slots.pack(value, slot)


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
