"""The YAML of a grid: a base recipe, what is varied, and how cells are made of it.

    version: 1
    name: filters
    base: ../quickstart.yaml           # relative to this file
    mode: product                      # or one_factor: the reference, and every other value alone
    seeds: [0, 1, 2]                   # every cell is trained once with each
    set: {train.resources.cpu: 1}      # of all cells
    axes:
      model.clue_extractor.layer: [0.6, 0.8]
      model.reasoner: [evidence, {label: sees video, value: {name: clue_chain, scoring: letters}}]
    paired:                            # settings that vary together, as one axis
      filter:
        - {label: adaptive}            # nothing set: as the base has it
        - {label: all, set: {model.clue_filter: keep_all, train.stage2.losses.filter: 0}}
    exclude:
      - {filter: all, model.clue_extractor.layer: 0.8}
    asha: {first: 100, eta: 3}         # stop cells early that do badly in validation

A value replaces what stands at its path, as `path=value` on the command line does. The first value of every axis makes the
**reference**, which all other cells are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cluenet.config.base import Section
from cluenet.errors import RecipeError
from cluenet.problems import problems_of
from cluenet.recipe import read_values

MARKS = ("base", "axes", "paired")
"""Keys that grids have and recipes do not."""


class PairedValue(Section):
    label: str = Field(description="What tables call it.", min_length=1)
    set: dict[str, Any] = Field({}, description="Recipe paths and their values; none: as the base has it.")


class Asha(Section):
    """Asynchronous successive halving: cells that are worse than others in validation are not trained to their end."""

    first: int = Field(
        description="Optimiser steps, of stage 1 and stage 2 together, after which runs are compared first; then after "
        "first x eta, first x eta^2, and so on.",
        ge=1,
    )
    eta: int = Field(3, description="Of so many runs that are compared, one goes on.", ge=2)


class GridSpec(Section):
    version: Literal[1] = Field(1, description="Version of the format.")
    name: str = Field(description="Name of the folder of results, <runs>/grids/<name>.", pattern=r"^[\w.-]+$")
    base: str = Field(description="Recipe that cells change, relative to this file.")
    mode: Literal["product", "one_factor"] = Field(
        "product",
        description="product: every combination; one_factor: the reference, and every other value of every axis by itself.",
    )
    seeds: tuple[int, ...] = Field((0,), description="Every cell is trained once with each.", min_length=1)
    set: dict[str, Any] = Field({}, description="Recipe paths and their values in all cells.")
    axes: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        {}, description="Recipe paths and the values that they take; {label, value} gives a value a name."
    )
    paired: dict[str, Annotated[tuple[PairedValue, ...], Field(min_length=1)]] = Field(
        {}, description="Further axes by a name of their own, whose values set several recipe paths."
    )
    exclude: tuple[dict[str, Any], ...] = Field(
        (), description="Partial cells, {axis: value or label}; a cell that has all of one is left out."
    )
    across_frames: bool = Field(
        False, description="Compare cells that see other frames too; otherwise such cells are an error."
    )
    retries: int = Field(1, description="How often a step that fails is tried again.", ge=0)
    asha: Asha | None = Field(None, description="Stop cells early that do badly in validation; null: none is.")


@dataclass(frozen=True)
class Value:
    """One value of an axis. settings: recipe path -> value. place: where it stands in the grid's file."""

    label: str
    settings: Mapping[str, Any]
    place: str

    def is_called(self, wanted: Any) -> bool:
        """Whether `exclude` means this one: by its label, or by the value itself."""
        return wanted == self.label or (len(self.settings) == 1 and wanted in self.settings.values())


@dataclass(frozen=True)
class Axis:
    name: str
    values: tuple[Value, ...]
    place: str

    @property
    def reference(self) -> Value:
        return self.values[0]


def is_grid(values: Mapping[str, Any]) -> bool:
    """Whether a YAML file's content is meant as a grid, and not as a recipe."""
    return any(key in values for key in MARKS)


def read_spec(path: Path) -> GridSpec:
    """Raises RecipeError with every problem of the file itself."""
    try:
        return GridSpec.model_validate(read_values(path))
    except ValidationError as error:
        raise RecipeError(str(path), problems_of(error, GridSpec)) from None


def axes_of(spec: GridSpec) -> list[Axis]:
    """Of `axes` and `paired`, in the order of the file."""
    return [*_plain(spec), *_paired(spec)]


def _plain(spec: GridSpec) -> Iterator[Axis]:
    for path, values in spec.axes.items():
        place = f"axes.{path}"
        named = [_named(value) for value in values]
        yield Axis(
            path, tuple(Value(label, {path: value}, f"{place}.{i}") for i, (label, value) in enumerate(named)), place
        )


def _paired(spec: GridSpec) -> Iterator[Axis]:
    for name, values in spec.paired.items():
        place = f"paired.{name}"
        yield Axis(name, tuple(Value(one.label, one.set, f"{place}.{i}") for i, one in enumerate(values)), place)


def _named(value: Any) -> tuple[str, Any]:
    if isinstance(value, Mapping) and set(value) == {"label", "value"}:
        return str(value["label"]), value["value"]
    return _label(value), value


def _label(value: Any) -> str:
    """adaptive; top_k (k 2); 0.5; [0.5,0.5]"""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        rest = ", ".join(f"{key} {_label(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']} ({rest})" if rest else value["name"]
    return json.dumps(value, separators=(",", ":"), default=str)
