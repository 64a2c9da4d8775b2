"""Writes docs/recipe_reference.md from the code: every setting of a recipe, and every built-in component's.

python -m cluenet.reference docs/recipe_reference.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cluenet.config.choice import Choice
from cluenet.config.train import STAGE_STEP
from cluenet.listing import components
from cluenet.recipe import Recipe
from cluenet.steps import declared_step

HEADER = """# Recipe reference

Generated from the code by `python -m cluenet.reference`; a test compares it. The last column says which step of the
pipeline a change makes stale: that step and those after it run again, the others are found again. `none` changes nothing.
"""


def reference() -> str:
    """The page as Markdown."""
    sections = [
        "## Settings",
        *_table(("setting", "default", "what it does", "step"), _settings(Recipe)),
        "",
        "## Components",
    ]
    for component in components():
        if component["module"].startswith("cluenet_components."):
            sections += ["", f"### {component['kind']} `{component['name']}`", "", component["description"]]
            if component["settings"]:
                rows = [(f"`{s['name']}`", _default(s), s["description"], s["allowed"]) for s in component["settings"]]
                sections += ["", *_table(("setting", "default", "what it does", "allowed"), rows)]
    return "\n".join([HEADER, *sections]) + "\n"


def _settings(model: type[BaseModel], prefix: str = "", step: str | None = None) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        path, annotation = f"{prefix}{name}", field.annotation
        own = declared_step(field) or step
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not _is_component(annotation):
            yield from _settings(annotation, f"{path}.", STAGE_STEP.get(annotation, own))
        else:
            yield f"`{path}`", _shown(field), field.description or "", own or "of the component"
            for choice in (mark for mark in field.metadata if isinstance(mark, Choice)):
                yield from _options(choice, path, own or "")


def _options(choice: Choice, path: str, step: str) -> Iterator[tuple[str, str, str, str]]:
    """What each of the sections of a choice can be told; one row for what several of them share."""
    owners: dict[tuple[str, str, str, str], list[str]] = {}
    for name, section in choice.sections.items():
        for row in _settings(section, f"{path}.", step):
            owners.setdefault(row, []).append(f"`{name}`")
    for (setting, default, what, affects), names in owners.items():
        if not setting.endswith(".name`"):
            yield f"{setting}, with {' or '.join(names)}", default, what, affects


def _is_component(annotation: type[BaseModel]) -> bool:
    return hasattr(annotation, "build")


def _shown(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else f"`{json.dumps(value, default=str)}`"


def _default(setting: dict[str, Any]) -> str:
    return f"`{json.dumps(setting['default'])}`" if "default" in setting else "required"


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
