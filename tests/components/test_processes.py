"""Calls in worker processes: what they return comes back whole, by way of memory that is shared, and leaves that memory free."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from pebble import ProcessExpired

from cluenet import processes
from cluenet.processes import SLOTS_PER_WORKER, WorkerPool
from cluenet.shared_slots import SLOT_BYTES

WORKERS = 2
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such memory")


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(WORKERS, recycle_after=9, memory_gib=4)
    yield made
    made.close()


def call(pool: WorkerPool, function: Any, *args: Any, timeout_seconds: float = 60) -> Any:
    return pool.result(pool.submit(function, args, timeout_seconds=timeout_seconds))


def free_slots(pool: WorkerPool) -> set[int]:
    _, slots = pool._made
    free = set(iter(slots.take, None))
    for slot in free:
        slots.free(slot)
    return free


ALL = set(range(SLOTS_PER_WORKER * WORKERS)) if sys.platform == "linux" else set()


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of arrays of every call that came through shared memory."""
    sizes: list[int] = []
    hand_over = processes._hand_over

    def counted(ended: Any, *rest: Any) -> None:
        sizes.append(sum(ended.result().array_bytes))
        hand_over(ended, *rest)

    monkeypatch.setattr(processes, "_hand_over", counted)
    return sizes


def _ones(count: int) -> np.ndarray:
    return np.ones(count, np.uint8)


@ON_LINUX
def test_arrays_come_by_shared_memory_as_far_as_it_has_room(pool: WorkerPool, shared: list[int]) -> None:
    for size in (10, SLOT_BYTES, SLOT_BYTES + 1):
        found = call(pool, _ones, size)
        assert (found.sum(), found.flags.writeable) == (size, True)
    assert shared == [10, SLOT_BYTES, 0]


@ON_LINUX
def test_without_a_free_slot_they_are_piped(pool: WorkerPool, shared: list[int]) -> None:
    _, slots = pool._made
    taken = list(iter(slots.take, None))
    assert call(pool, _ones, 7).sum() == 7
    assert shared == [0]
    for slot in taken:
        slots.free(slot)


def test_many_calls_at_once(pool: WorkerPool) -> None:
    """In processes that are replaced meanwhile."""
    sizes = [100_000 + number for number in range(60)]
    calls = [pool.submit(_ones, (size,), timeout_seconds=60) for size in sizes]
    assert [pool.result(one).sum() for one in calls] == sizes
    assert free_slots(pool) == ALL


def test_results_that_nobody_asks_for_leave_their_slots(pool: WorkerPool) -> None:
    for _ in range(len(ALL)):
        pool.submit(_ones, (10,), timeout_seconds=60)
    deadline = time.monotonic() + 60
    while free_slots(pool) != ALL and time.monotonic() < deadline:
        time.sleep(0.05)
    assert free_slots(pool) == ALL


def _fail() -> None:
    raise ZeroDivisionError("a mistake")


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [(_fail, (), ZeroDivisionError), (os._exit, (3,), ProcessExpired), (time.sleep, (60,), TimeoutError)],
    ids=["raises", "dies", "hangs"],
)
def test_calls_that_fail_leave_their_slots(pool: WorkerPool, function: Any, args: tuple[Any, ...], error: type) -> None:
    with pytest.raises(error):
        call(pool, function, *args, timeout_seconds=1 if error is TimeoutError else 60)
    assert free_slots(pool) == ALL
    assert call(pool, _ones, 7).sum() == 7


def test_a_call_that_cannot_be_made_leaves_its_slot(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no process can be started")

    monkeypatch.setattr(pool._made[0], "schedule", refuse)
    with pytest.raises(OSError, match="no process"):
        pool.submit(_ones, (5,), timeout_seconds=60)
    assert free_slots(pool) == ALL


def _start_and_die() -> None:
    os._exit(1)


def test_a_pool_that_breaks_down_is_repaired_with_memory_of_its_own_and_all_who_wait_are_told() -> None:
    pool = WorkerPool(1, recycle_after=9, memory_gib=4, initializer=_start_and_die)
    before = pool._made
    try:
        calls = [pool.submit(_ones, (5,), timeout_seconds=60) for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:
            found = [threads.submit(pool.result, one).exception(timeout=60) for one in calls]
        assert [type(one) for one in found] == [BrokenProcessPool] * 2
        assert all(mine is not its for mine, its in zip(pool._made, before, strict=True))
    finally:
        pool.close()


def _faults_of_arrays(rounds: int) -> int:
    """New pages that the system hands out while arrays come and go, three of 2 MB at a time."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        _ = [np.ones(2 * 10**6, np.uint8) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_that_was_freed_is_used_again() -> None:
    pool = WorkerPool(1, recycle_after=9, memory_gib=4)
    try:
        call(pool, _faults_of_arrays, 5)
        assert call(pool, _faults_of_arrays, 20) < 2_000
    finally:
        pool.close()
