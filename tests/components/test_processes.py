"""Calls in worker processes: what they return comes back whole, by way of memory that is shared, and leaves that memory free."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from pebble import ProcessExpired

from cluenet import processes
from cluenet.processes import SLOTS_PER_WORKER, WorkerPool
from cluenet.shared_slots import Packed

RESULT_BYTES = 2**20
WORKERS = 2


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(WORKERS, recycle_after=9, memory_gib=4, result_bytes=RESULT_BYTES)
    yield made
    made.close()


def call(pool: WorkerPool, function: Any, *args: Any, timeout_seconds: float = 60) -> Any:
    return pool.result(pool.submit(function, args, timeout_seconds=timeout_seconds))


def free_slots(pool: WorkerPool) -> set[int]:
    free = set(iter(pool._slots.take, None))
    for slot in free:
        pool._slots.free(slot)
    return free


ALL = set(range(SLOTS_PER_WORKER * WORKERS))


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of arrays that calls hand over through shared memory, 0 where they are piped."""
    sizes: list[int] = []
    hand_over = processes._hand_over

    def counted(ended: Any, *rest: Any) -> None:
        value = ended.result()
        sizes.append(sum(value.array_bytes) if isinstance(value, Packed) else 0)
        hand_over(ended, *rest)

    monkeypatch.setattr(processes, "_hand_over", counted)
    return sizes


def _ones(count: int) -> np.ndarray:
    return np.ones(count, np.uint8)


def test_arrays_come_by_shared_memory_as_far_as_it_has_room(pool: WorkerPool, piped: list[int]) -> None:
    for size in (RESULT_BYTES, RESULT_BYTES + 1):
        found = call(pool, _ones, size)
        assert (found.sum(), found.flags.writeable) == (size, True)
    assert piped == [RESULT_BYTES, 0]


def test_more_calls_than_slots(pool: WorkerPool, piped: list[int]) -> None:
    """In processes that are replaced meanwhile."""
    sizes = [1000 + number for number in range(30)]
    tasks = [pool.submit(_ones, (size,), timeout_seconds=60) for size in sizes]
    assert [pool.result(task).sum() for task in tasks] == sizes
    assert 0 in piped, "calls beyond the slots"
    assert sum(size > 0 for size in piped) >= len(ALL)
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


def test_a_pool_without_room_for_results_pipes_them(piped: list[int]) -> None:
    pool = WorkerPool(1, recycle_after=9, memory_gib=4)
    try:
        assert call(pool, _ones, 5).sum() == 5
    finally:
        pool.close()
    assert piped == [0]


def _start_and_die() -> None:
    os._exit(1)


def test_a_pool_that_breaks_down_is_repaired_with_memory_of_its_own() -> None:
    pool = WorkerPool(1, recycle_after=9, memory_gib=4, result_bytes=RESULT_BYTES, initializer=_start_and_die)
    slots = pool._slots
    try:
        with pytest.raises(BrokenProcessPool):
            call(pool, _ones, 5)
        assert pool._slots is not slots
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
