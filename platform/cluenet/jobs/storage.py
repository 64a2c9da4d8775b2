"""Whether what a job makes outlives it: a job runs in a copy of the working directory, which Ray deletes later."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cluenet.errors import Problem, RecipeError
from cluenet.recipe import Recipe

INSIDE_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
FOLDERS = ("store", "runs")


def require_kept(recipes: Iterable[Recipe], file: Path) -> None:
    """Raises RecipeError when results would lie in the copy that the job works in, which Ray deletes."""
    lost = dict.fromkeys((key, path) for recipe in recipes for key, path in relative_folders(recipe))
    if lost:
        raise RecipeError(str(file), [Problem(key, _lost(key, path)) for key, path in lost])


def relative_folders(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Settings of folders that are relative to where the command runs, with their values."""
    for key in FOLDERS:
        path = str(getattr(recipe, key))
        if "://" not in path and not Path(path).expanduser().is_absolute():
            yield key, path


def _lost(key: str, path: str) -> str:
    return (
        f"is {path!r}, relative to the copy of the working directory that a job runs in. Ray deletes that copy, and a retried "
        f"job would start from nothing. Name a folder that every node of the cluster sees: {key}=/shared/{Path(path).name}"
    )


def notes(recipes: Iterable[Recipe]) -> Iterator[str]:
    for recipe in recipes:
        for key in FOLDERS:
            if (path := str(getattr(recipe, key))).startswith("~"):
                yield f"note: {key} is {path}, another folder on every node. With more than one node give a shared one."


def note_inside_a_job(recipe: Recipe) -> str | None:
    """What to say where a job that was submitted by hand is about to lose its results."""
    lost = [f"{key}={path}" for key, path in relative_folders(recipe)] if INSIDE_A_JOB in os.environ else []
    if not lost:
        return None
    return (
        f"note: {' and '.join(lost)} lies in this job's copy of the working directory, which Ray deletes later. "
        "Name folders that outlive the job, such as runs=/shared/runs."
    )
