"""What `cluenet evaluate` is told beside the recipe: fewer questions, another split, more orders of the options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluenet.recipe import Recipe, load


def narrowed(
    path: Path, overrides: Sequence[str] = (), *, limit: int | None = None, split: str | None = None, shuffles: int | None = None
) -> Recipe:  # fmt: skip
    """The recipe in `path`, every test entry with at most its first `limit` questions and with this split.

    Raises RecipeError, also for a split that a dataset does not have, naming those that it has.
    """
    more = [] if shuffles is None else [f"evaluate.shuffles={shuffles}"]
    recipe = load(path, [*overrides, *more])
    if limit is None and split is None:
        return recipe
    values = recipe.to_dict()
    values["data"]["test"] = [_entry(entry, limit, split) for entry in values["data"]["test"]]
    return Recipe.from_dict(values, file=f"{path} with --limit or --split")


def _entry(entry: dict[str, Any], limit: int | None, split: str | None) -> dict[str, Any]:
    first = [count for count in (limit, entry["max_samples"]) if count is not None]
    return {**entry, "split": split or entry["split"], "max_samples": min(first, default=None)}


def evaluation_folder(limit: int | None, split: str | None) -> str:
    """Name of the folder for results. Those of other questions than the recipe's stand apart: `cluenet compare` and the report
    read `evaluation`."""
    parts = ["evaluation", *([split] if split else []), *([f"first{limit}"] if limit else [])]
    return "-".join(parts)
