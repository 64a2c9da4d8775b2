"""Grids over a small ClueWorld recipe, and evaluations of their runs that nobody made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluenet import fingerprint
from cluenet.folders import write_manifest
from cluenet.grid.cells import Cell, Grid, load
from cluenet.planning import Plan
from helpers.samples import sample

BASE = {
    "name": "small",
    "data": {
        "size": {"height": 64, "width": 64}, "sampler": {"name": "uniform"},
        "train": [{"name": "clueworld", "videos": 8}], "validation": [{"name": "clueworld", "split": "validation", "videos": 2}],
        "test": [{"name": "clueworld", "split": "test", "videos": 2}],
    },
    "model": {"clue_filter": "keep_all"},
    "train": {"stage1": {"steps": 4}, "stage2": {"steps": 2, "losses": {"filter": 0.0}}},
}  # fmt: skip
FILTERS = {"model.clue_filter": ["keep_all", "random", "top_k"]}
POLICY = {"sampler": {"name": "uniform", "frames": 16}, "size": {"height": 64}, "codec": "lossless"}


def grid_of(folder: Path, **values: Any) -> Grid:
    """A grid in `folder`, whose runs and store lie there."""
    settings = {"store": str(folder / "store"), "runs": str(folder / "runs"), **values.pop("set", {})}
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "grid.yaml").write_text(yaml.safe_dump({"name": "g", "base": "base.yaml", "set": settings, **values}))
    return load(folder / "grid.yaml")


def samples_of(rights: Sequence[bool]) -> list[dict[str, Any]]:
    """Two questions per video, of two types."""
    return [
        sample(i, video=f"v{i // 2}", type=("who", "count")[i % 2], prediction=0 if right else 1)
        for i, right in enumerate(rights)
    ]


def evaluated(
    grid: Grid, rights: Callable[[Cell, int], Sequence[bool] | None], *, tokens: Callable[[Cell], float] = lambda cell: 16.0,
    **manifest: Any,
) -> None:  # fmt: skip
    """Finished evaluations of every run. rights: which questions a cell and seed has right; None: not evaluated."""
    for cell in grid.cells:
        for seed, recipe in cell.recipes.items():
            if (found := rights(cell, seed)) is not None:
                write_evaluation(Plan(recipe), samples_of(found), tokens(cell), cell.evaluation, **manifest)


def write_evaluation(
    plan: Plan, samples: Sequence[dict[str, Any]], tokens: float = 16.0, evaluation: str = "evaluation", **manifest: Any
) -> Path:
    (prepared,) = plan.prepared("test")
    folder = plan.run / evaluation / "clueworld-test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    (folder / "results.json").write_text(json.dumps({"tokens": {"visual": 128.0, "seen": tokens, "clue_words": 4.0}}))
    address = fingerprint.evaluation(plan.recipe, plan.stage2, prepared.name)
    settings = {"policy": POLICY, "policy_fingerprint": "p", "seconds_per_question": 0.002, **manifest}
    write_manifest(folder, {"address": address, **settings})
    return folder
