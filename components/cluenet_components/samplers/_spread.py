"""Even spacing, shared by several samplers."""

from __future__ import annotations


def spread(first: int, last: int, count: int) -> list[int]:
    """`count` frame numbers in first..last: the middles of equal parts, ascending, repeated when there are too few."""
    length = last - first + 1
    return [first + int((i + 0.5) * length / count) for i in range(count)]
