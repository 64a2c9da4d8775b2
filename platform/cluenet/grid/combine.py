"""How values of axes make cells, and what cells are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from cluenet.grid.spec import Axis, GridSpec, Value


def combinations_of(spec: GridSpec, axes: Sequence[Axis]) -> Iterator[dict[str, Value]]:
    """The reference first."""
    if spec.mode == "product":
        found = (dict(zip((axis.name for axis in axes), values)) for values in product(*(a.values for a in axes)))
    else:
        reference = {axis.name: axis.reference for axis in axes}
        others = ({**reference, axis.name: value} for axis in axes for value in axis.values[1:])
        found = (one for group in ([reference], others) for one in group)
    yield from (values for values in found if not any(has(values, one) for one in spec.exclude))


def has(values: Mapping[str, Value], partial: Mapping[str, Any]) -> bool:
    return bool(partial) and all(name in values and values[name].is_called(want) for name, want in partial.items())


def name_of(spec: GridSpec, axes: Sequence[Axis], values: Mapping[str, Value]) -> str:
    """filter=all layer=0.8; one factor at a time: the value that differs, or `reference`."""
    shown = [
        f"{short}={values[axis.name].label}"
        for axis, short in zip(axes, short_names(axes))
        if spec.mode == "product" or values[axis.name] is not axis.reference
    ]
    return " ".join(shown) or "reference"


def short_names(axes: Sequence[Axis]) -> list[str]:
    """The last word of a path, where no other axis ends in it."""
    lasts = [axis.name.rpartition(".")[2] for axis in axes]
    return [last if lasts.count(last) == 1 else axis.name for axis, last in zip(axes, lasts)]


def setting_of(path: str, settings: Mapping[str, Any]) -> str | None:
    """The one of these settings that a path of a recipe belongs to, or that belongs to it."""
    return next((one for one in settings if f"{path}.".startswith(f"{one}.") or f"{one}.".startswith(f"{path}.")), None)
