"""Blocks of shared memory for arrays on their way back from worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluenet.arenas import SHARED, Arenas, Place, Writer


@pytest.fixture
def arenas() -> Iterator[Arenas]:
    made = Arenas(2, 1000)
    yield made
    made.close()


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


def test_arrays_are_what_was_put_until_there_is_no_room(arenas: Arenas) -> None:
    arena = arenas.take()
    with Writer(arena.name) as writer:
        first, second = writer.put(numbers(2, 5, 4, 3)), writer.put(numbers(4, 10, 7, 3)[:, ::2])
        assert writer.put(numbers(5, 10, 10)) is None
        last = writer.put(numbers(460))
        assert writer.put(numbers(1)) is None
    assert (first, second) == (Place(0, (2, 5, 4, 3)), Place(120, (4, 5, 7, 3)))
    assert np.array_equal(arena.copy(first), numbers(2, 5, 4, 3))
    assert np.array_equal(arena.copy(second), numbers(4, 10, 7, 3)[:, ::2])
    assert np.array_equal(arena.copy(last), numbers(460))


def test_what_was_taken_out_does_not_change_when_the_block_is_used_again(arenas: Arenas) -> None:
    arena = arenas.take()
    with Writer(arena.name) as writer:
        place = writer.put(numbers(10))
    kept = arena.copy(place)
    with Writer(arena.name) as writer:
        writer.put(numbers(10) + 7)
    assert np.array_equal(kept, numbers(10))


def test_there_are_so_many_blocks_and_no_more(arenas: Arenas) -> None:
    first, second = arenas.take(), arenas.take()
    assert arenas.take() is None
    arenas.give_back(first)
    assert arenas.take() is first
    arenas.give_back(second, spoilt=True)
    fresh = arenas.take()
    assert fresh.name != second.name
    assert not (SHARED / second.name).exists()


def test_closing_removes_all(arenas: Arenas) -> None:
    names = [arenas.take().name, arenas.take().name]
    assert all((SHARED / name).exists() for name in names)
    arenas.close()
    assert not any((SHARED / name).exists() for name in names)


def test_without_room_there_is_no_block_and_nothing_is_left(arenas: Arenas, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def full(descriptor: int, *_: object) -> None:
        asked.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        assert asked[-1].exists()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert arenas.take() is None
        assert arenas.take() is None
    assert len(asked) == 2
    assert not any(path.exists() for path in asked)
    assert arenas.take() is not None


def test_a_writer_without_a_block_has_room_for_nothing() -> None:
    with Writer(None) as writer:
        assert writer.put(numbers(1)) is None
