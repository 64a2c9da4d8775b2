"""Checks a YAML file of any kind that the project reads or ships: recipes, grids, Serve configs, cluster files, KubeRay's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluenet.errors import Problem, RecipeError

Check = Callable[[Path, Mapping[str, Any], Sequence[str]], None]


def check(path: Path, overrides: Sequence[str] = ()) -> None:
    """Raises RecipeError with every problem of every document in the file. overrides: `key.path=value`, for recipes and grids."""
    documents = _documents(path)
    problems: list[Problem] = []
    for number, values in enumerate(documents, 1):
        try:
            _check_of(values)(path, values, overrides)
        except RecipeError as error:
            at = f"document {number}: " if len(documents) > 1 else ""
            problems += [Problem((at + one.path).removesuffix(": "), one.message) for one in error.problems]
    if problems:
        raise RecipeError(str(path), problems)


def _documents(path: Path) -> list[Any]:
    """One, but for KubeRay's files. What cannot be read is left to the recipe's reader, which says so."""
    try:
        return [one for one in yaml.safe_load_all(path.read_text()) if one is not None] or [{}]
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return [{}]


def _check_of(values: Any) -> Check:
    """By the keys that only one kind of file has."""
    from cluenet.clusterfiles import kuberay, launcher
    from cluenet.grid import spec

    keys = set(values) if isinstance(values, Mapping) else set()
    if "applications" in keys:
        return _serve
    if keys & set(kuberay.MARKS):
        return lambda path, found, _: kuberay.check(found, str(path))
    if keys & set(launcher.MARKS):
        return lambda path, found, _: launcher.check(found, str(path))
    return _grid if spec.is_grid(dict.fromkeys(keys)) else _recipe


def _serve(path: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    from cluenet.serve import export

    export.check_values(values, str(path))


def _grid(path: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    from cluenet.grid import cells

    cells.load(path, overrides)


def _recipe(path: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    from cluenet.recipe import load

    load(path, overrides)
