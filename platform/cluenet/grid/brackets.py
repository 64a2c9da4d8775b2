"""What is known of the rungs of a grid: a bracket per seed, kept in `<runs>/grids/<name>/asha.json`, so that a grid that was killed
goes on with its decisions and its table can be written again.

    {"first": 100, "eta": 3, "rungs": [{"seed": 0, "rung": 0, "steps": 100, "cells": ["reference"], "stage": "stage1",
     "address": "0f3a...", "step": 100, "accuracy": 0.412, "promoted": true}, ...]}

`cells` share a training until there; steps are those of the run, `step` is that of the stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluenet.folders import atomic_write_json
from cluenet.grid.asha import Bracket
from cluenet.grid.graph import Graph, Place
from cluenet.grid.rungs import Point, by_rung, points_by_place
from cluenet.grid.spec import Asha


class Brackets:
    """Of the runs of `graph`, of which the first one of each seed is the reference. Without `asha` there are none."""

    def __init__(self, graph: Graph, asha: Asha | None = None, folder: Path | None = None):
        """folder: of the grid's results."""
        self.graph, self.asha = graph, asha
        self._file = None if asha is None or folder is None else folder / "asha.json"
        self.points: dict[Place, tuple[Point, ...]] = {} if asha is None else points_by_place(asha, graph)
        self.by_seed = {} if asha is None else {seed: self._bracket(asha, seed) for seed in self._seeds()}
        self._others = [record for record in self._records_on_disk() if not self._take(record)]

    def _seeds(self) -> Iterable[int]:
        return dict.fromkeys(seed for _, seed in self.points)

    def _bracket(self, asha: Asha, seed: int) -> Bracket[Point]:
        points = [found for (_, other), found in self.points.items() if other == seed]
        return Bracket(by_rung(points), eta=asha.eta, kept=points[0])

    def of(self, place: Place) -> Bracket[Point]:
        return self.by_seed[place[1]]

    def rung(self, place: Place) -> Point | None:
        """Where a run is or will be compared next; None: it may go on to its end."""
        promoted = self.of(place).promoted
        return next((point for point in self.points[place] if point not in promoted), None)

    def after(self, place: Place, point: Point) -> Point | None:
        """The rung of a run after this one."""
        rest = self.points[place][self.points[place].index(point) + 1 :]
        return rest[0] if rest else None

    def level(self, place: Place) -> int:
        """How many rungs a run has gone on from."""
        return sum(point in self.of(place).promoted for point in self.points[place])

    # ------------------------------------------------------------------------------------------------- in words

    def stopped(self, place: Place) -> str:
        """Why a run does not go on; empty where it does, or will when there is room."""
        rung = self.rung(place) if place in self.points else None
        if rung is None or rung not in self.of(place).accuracies or rung in self.of(place).promotable():
            return ""
        at = self.of(place).standing(rung)
        return (
            f"asha, seed {place[1]}: {100 * at.accuracy:.1f} % after {rung.steps} steps, rank {at.rank} of {at.of}, "
            f"best {at.places} go on"
        )

    def to_dict(self) -> dict[str, Any] | None:
        """For grid.json: how many different trainings have come to each rung, and how many of them went on."""
        if self.asha is None:
            return None
        rungs = [
            {
                "seed": seed, "steps": rung[0].steps, "reached": sum(one in bracket.accuracies for one in rung),
                "promoted": sum(one in bracket.promoted for one in rung),
            }
            for seed, bracket in self.by_seed.items() for rung in bracket.rungs
        ]  # fmt: skip
        return {**self.asha.model_dump(), "rungs": rungs}

    # --------------------------------------------------------------------------------------------------- on disk

    def save(self) -> None:
        """With what is known of trainings of other settings or cells, which may come back. Raises StorageError."""
        if self._file is not None and self.asha is not None:
            atomic_write_json(self._file, {**self.asha.model_dump(), "rungs": [*self._records(), *self._others]})

    def _records(self) -> list[dict[str, Any]]:
        return [
            {
                "seed": seed, "rung": number, "steps": point.steps, "cells": self._cells(point, seed),
                "stage": point.key[0], "address": point.key[1], "step": point.step,
                "accuracy": bracket.accuracies[point], "promoted": point in bracket.promoted,
            }
            for seed, bracket in self.by_seed.items()
            for number, rung in enumerate(bracket.rungs)
            for point in rung if point in bracket.accuracies
        ]  # fmt: skip

    def _cells(self, point: Point, seed: int) -> list[str]:
        return [cell for (cell, other), points in self.points.items() if other == seed and point in points]

    def _records_on_disk(self) -> list[Mapping[str, Any]]:
        try:
            return list(json.loads(self._file.read_text())["rungs"]) if self._file else []
        except FileNotFoundError:
            return []

    def _take(self, record: Mapping[str, Any]) -> bool:
        """Whether the record is of a training of these runs."""
        point = Point((record["stage"], record["address"]), record["step"], record["steps"])
        bracket = self.by_seed.get(record["seed"])
        if bracket is None or not any(point in rung for rung in bracket.rungs):
            return False
        bracket.report(point, record["accuracy"])
        if record["promoted"]:
            bracket.promote(point)
        return True
