"""Finds components: the built-in ones, packages with a `cluenet.components` entry point, and a recipe's `plugins:`.

A plug-in that cannot be imported stops the program and is named; it is never skipped.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points

from cluenet.errors import PluginError

GROUP = "cluenet.components"


def load_components(plugins: Iterable[str] = (), *, only: Iterable[str] = ()) -> None:
    """Import every component. Raises PluginError naming the package, the module and the cause.

    `only`: names of the built-in folders that are needed, such as `readers`; a decoding process has no use for torch.
    """
    for module in [f"cluenet_components.{folder}" for folder in only] or ["cluenet_components"]:
        _load(module, "the built-in components")
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.module != "cluenet_components":
            _load(
                entry.module, f"package {entry.dist.name if entry.dist else entry.name!r} (entry point {entry.name!r})"
            )
    for module in plugins:
        _load(module, f"`plugins: [{module}]` of the recipe")


@cache
def _load(module: str, origin: str) -> None:
    try:
        package = importlib.import_module(module)
        for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{module}."):
            importlib.import_module(found.name)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(
            f"{origin} cannot be imported: module {module!r}: {type(error).__name__}: {error}. "
            "Fix or uninstall it; with --debug the traceback is shown."
        ) from error
