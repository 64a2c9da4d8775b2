"""Worker processes that may hang, die or eat memory: calls with a time and a memory limit, in a pool that repairs itself. Thread-safe."""

from __future__ import annotations

import ctypes
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any

from pebble import ProcessFuture, ProcessPool

PIPE_BYTES = 2**19
"""Less than Linux allows a pipe (1 MiB), since it counts those of a user together too (64 MiB)."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MALLOC = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25}
"""Bytes, for mallopt(3)."""


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
        self._pool = self._new_pool()

    def submit(
        self, function: Callable[..., Any], args: Sequence[Any], *, timeout_seconds: float
    ) -> ProcessFuture[Any] | None:
        """The time counts from when a process starts on it. None: the pool broke down, which `result` reports and repairs."""
        try:
            return self._pool.schedule(function, args=args, timeout=timeout_seconds)
        except RuntimeError:
            return None

    def result(self, task: ProcessFuture[Any] | None) -> Any:
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
                self._pool = self._new_pool()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._workers, max_tasks=self._recycle_after, context=_WidePipes(),
            initializer=_start_worker, initargs=self._start,
        )  # fmt: skip


class _WidePipes(SpawnContext):
    """spawn: a fork of a process with threads (Ray's) can hang. With pipes of Linux's usual 64 KiB a result of megabytes stops its
    process some twenty times until somebody reads."""

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        reader, writer = super().Pipe(duplex)
        with suppress(ImportError, AttributeError, OSError):  # not on Linux; the user has as much as Linux gives
            import fcntl

            fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return reader, writer


def _start_worker(initializer: Callable[..., None] | None, initargs: Sequence[Any], memory_gib: float | None) -> None:
    _keep_freed_memory()
    if initializer is not None:
        initializer(*initargs)
    if memory_gib is not None:
        _limit_memory(int(memory_gib * 2**30))


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
