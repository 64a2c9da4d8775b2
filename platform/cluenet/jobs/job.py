"""From a recipe or a grid to a job: the command, its id, its environment, and whether its results would survive it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluenet import cluster
from cluenet.errors import Problem, RecipeError
from cluenet.grid import cells, spec
from cluenet.jobs import package, storage
from cluenet.recipe import Recipe, load, read_values
from cluenet.records import content_hash


@dataclass(frozen=True)
class Job:
    """`name`: of everything that says the same; an attempt's id is `<name>-<number>`."""

    name: str
    command: tuple[str, ...]
    runtime_env: dict[str, Any]
    notes: tuple[str, ...] = ()


def job_of(file: Path, overrides: Sequence[str], folder: Path, variables: Sequence[str] = ()) -> Job:
    """The job that runs `file`, a recipe or a grid, in a copy of `folder` on the cluster.

    variables: NAME=VALUE, or NAME for the value it has here. Raises RecipeError, PluginError, ClusterError.
    """
    verb, name, recipes = _read(file, overrides)
    storage.require_kept(recipes, file)
    files = package.files_of(folder)
    package.require_shipped(sources(file), files, folder)
    package.require_small(files, folder)
    there = file.resolve().relative_to(folder.resolve()).as_posix()
    content = [recipe.to_dict() for recipe in recipes]
    return Job(
        f"{name}-{content_hash(content, length=10)}", ("python", "-m", "cluenet", verb, there, *overrides),
        _runtime_env(folder, files, recipes, variables), tuple(dict.fromkeys(storage.notes(recipes))),
    )  # fmt: skip


def _read(file: Path, overrides: Sequence[str]) -> tuple[str, str, list[Recipe]]:
    """The verb that runs the file, its name, and its recipes: of a grid those of all cells."""
    if spec.is_grid(read_values(file)):
        grid = cells.load(file, overrides)
        return "grid", grid.spec.name, [recipe for cell in grid.cells for recipe in cell.recipes.values()]
    recipe = load(file, overrides)
    return "run", recipe.name, [recipe]


def sources(file: Path) -> Iterator[Path]:
    """The file, and those that it extends or is based on."""
    yield file
    values = yaml.safe_load(file.read_text())
    for key in ("extends", "base"):
        if isinstance(other := values.get(key), str):
            yield from sources(file.parent / other)


def _runtime_env(
    folder: Path, files: Iterable[str], recipes: Iterable[Recipe], variables: Sequence[str]
) -> dict[str, Any]:
    """A checkout brings its own code, which its `sitecustomize.py` makes importable; other folders get the code that runs here."""
    found: dict[str, Any] = {"working_dir": str(folder), "excludes": list(package.EXCLUDES)}
    if "platform/cluenet/__init__.py" not in files:
        plugins = [name for recipe in recipes for name in recipe.plugins]
        found |= cluster.runtime_env(remote=True, plugins=plugins)
    if values := dict(map(_variable, variables)):
        found["env_vars"] = values
    return found


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or (not equals and name not in os.environ):
        problem = Problem("--env", f"{text!r} is neither NAME=VALUE nor the name of a variable that is set here")
        raise RecipeError("command line", [problem])
    return name, value if equals else os.environ[name]
