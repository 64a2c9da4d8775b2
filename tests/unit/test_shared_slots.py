"""Arrays come back through the memory that a process shares with its workers, whole and their own; what does not fit is pickled."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cluenet import shared_slots
from cluenet.shared_slots import KEPT_BYTES, SharedSlots

SLOT_BYTES = 1000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such memory")


@dataclass
class Value:
    name: str
    arrays: list[np.ndarray]


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> SharedSlots:
    monkeypatch.setattr(shared_slots, "SLOT_BYTES", SLOT_BYTES)
    return SharedSlots(2)


def numbers(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8)


def taken(slots: SharedSlots) -> int:
    slot = slots.take()
    assert slot is not None
    return slot


def there_and_back(slots: SharedSlots, value: Any, slot: int | None) -> Any:
    return slots.unpack(pickle.loads(pickle.dumps(slots.pack(value, slot))))


@pytest.mark.parametrize(
    "array",
    [
        numbers(600).reshape(2, 10, 10, 3),
        np.linspace(0.0, 1.0, 9),
        np.asfortranarray(numbers(60).reshape(6, 10)),
        numbers(60).reshape(6, 10)[:, ::3],
        np.empty((0, 4), np.float32),
        np.array(["a", None], dtype=object),
    ],
    ids=["frames", "float64", "by columns", "not contiguous", "empty", "objects"],
)
def test_arrays_of_every_kind(slots: SharedSlots, array: np.ndarray) -> None:
    back = there_and_back(slots, Value("a", [array, array[:1]]), taken(slots))
    assert back.name == "a"
    for found, expected in zip(back.arrays, [array, array[:1]], strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
        assert found.flags.writeable


def test_the_bytes_of_arrays_are_not_pickled_as_far_as_there_is_room(slots: SharedSlots) -> None:
    value = [numbers(700), numbers(701), numbers(300), numbers(1)]
    packed = slots.pack(value, taken(slots))
    assert packed.array_bytes == (700, 300), "the second and the last find no room"
    assert 702 < len(packed.pickled) < 1100
    for found, expected in zip(slots.unpack(packed), value, strict=True):
        assert np.array_equal(found, expected)
        assert found.flags.writeable


def test_what_was_read_only_stays_so_with_a_slot_and_without(slots: SharedSlots) -> None:
    array = numbers(60)
    array.setflags(write=False)
    for slot in (taken(slots), None):
        found = there_and_back(slots, array, slot)
        assert np.array_equal(found, array)
        assert not found.flags.writeable


def test_what_was_unpacked_stays_when_the_slot_is_used_again(slots: SharedSlots) -> None:
    first, second = taken(slots), taken(slots)
    found = there_and_back(slots, numbers(SLOT_BYTES), first)
    other = there_and_back(slots, numbers(SLOT_BYTES)[::-1].copy(), second)
    there_and_back(slots, np.zeros(SLOT_BYTES, np.uint8), first)
    assert np.array_equal(found, numbers(SLOT_BYTES))
    assert np.array_equal(other, numbers(SLOT_BYTES)[::-1])


def test_slots_lie_beside_each_other(slots: SharedSlots) -> None:
    packed = {slot: slots.pack(np.full(SLOT_BYTES, slot, np.uint8), slot) for slot in (taken(slots), taken(slots))}
    assert {slot: set(slots.unpack(one).tolist()) for slot, one in packed.items()} == {0: {0}, 1: {1}}


def test_a_slot_is_taken_once(slots: SharedSlots) -> None:
    assert {taken(slots), taken(slots)} == {0, 1}
    assert slots.take() is None
    slots.free(1)
    assert (slots.take(), slots.take()) == (1, None)


def test_without_a_slot_everything_is_pickled(slots: SharedSlots) -> None:
    packed = slots.pack(numbers(60), None)
    assert packed.array_bytes == ()
    assert np.array_equal(slots.unpack(packed), numbers(60))
    slots.free(None)
    assert {slots.take(), slots.take(), slots.take()} == {0, 1, None}


def test_where_no_memory_can_be_shared_there_are_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    slots = SharedSlots(2)
    assert slots.take() is None
    assert np.array_equal(there_and_back(slots, numbers(60), None), numbers(60))


def test_memory_is_there_when_it_is_written_and_what_is_more_than_usual_goes_again() -> None:
    slots = SharedSlots(2)
    file = slots._arena.fd

    def held() -> int:
        return os.fstat(file).st_blocks * 512

    assert held() == 0
    for size, most in ((KEPT_BYTES, KEPT_BYTES), (2 * KEPT_BYTES + 5, KEPT_BYTES), (100, KEPT_BYTES)):
        packed = slots.pack(np.ones(size, np.uint8), 1)
        assert held() >= size
        assert slots.unpack(packed).sum() == size
        assert held() <= most + 2**16
    del slots, packed
    with pytest.raises(OSError, match="Bad file descriptor"):
        held()
