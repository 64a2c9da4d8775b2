"""What components there are and what they can be told, for people (a table) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from cluenet.errors import CluenetError, suggestion
from cluenet.plugins import load_components
from cluenet.registry import register


def components(kind: str | None = None) -> list[dict[str, Any]]:
    """Every registered component, built in or from an installed package, of one kind or of all, in a stable order.

    Each: kind, name, version, module, description (first line of its docstring) and settings, a list of name, type,
    default (absent where it is required), allowed and description. Raises CluenetError on an unknown kind.
    """
    load_components()
    kinds = register.kinds()
    if kind is not None and kind not in kinds:
        raise CluenetError(f"no kind of component named {kind!r}. {suggestion(kind, kinds, label='Kinds')}")
    wanted = {kind: kinds[kind]} if kind else kinds
    return [_component(registry[name]) for registry in wanted.values() for name in registry]


def _component(cls: type[Any]) -> dict[str, Any]:
    return {
        "kind": cls.kind,
        "name": cls.name,
        "version": cls.version,
        "module": cls.__module__,
        "description": (cls.__doc__ or "").strip().split("\n")[0],
        "settings": list(_settings(cls.Config.model_json_schema())),
    }


def _settings(
    schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, prefix: str = ""
) -> Iterator[dict[str, Any]]:
    """Leaves of a JSON schema of pydantic's; a nested section gives dotted names."""
    root = root or schema
    for key, field in schema.get("properties", {}).items():
        name, section = f"{prefix}{key}", root.get("$defs", {}).get(str(field.get("$ref", "")).rpartition("/")[2])
        if section:
            yield from _settings(section, root, f"{name}.")
            continue
        setting = {"name": name, "type": _type(field), "allowed": _allowed(field)}
        if key not in schema.get("required", ()):
            setting["default"] = field.get("default")
        yield {**setting, "description": field.get("description", "")}


def _type(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " | ".join(_type(option) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return "choice"
    if field.get("type") == "array" and "items" in field:
        return f"list of {_type(field['items'])}"
    return str(field.get("type", "any"))


_LIMITS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "pattern": "like {}",
    "minLength": "{} letters or more",
    "minItems": "{} or more",
    "maxItems": "{} or fewer",
    "const": "{}",
}


def _allowed(field: Mapping[str, Any]) -> str:
    """ "1 <= x" in words: limits of the field and of its alternatives, "" when anything of its type goes."""
    parts = [text.format(field[key]) for key, text in _LIMITS.items() if key in field]
    parts += [" | ".join(map(str, field["enum"]))] if "enum" in field else []
    parts += [_allowed(option) for option in field.get("anyOf", ()) if _allowed(option)]
    return ", ".join(parts)


def table(rows: list[dict[str, Any]]) -> Table:
    """`components()` for the terminal."""
    result = Table("kind", "name", "what it does", "settings (default; allowed)", show_lines=True)
    for row in rows:
        settings = "\n".join(_setting_line(setting) for setting in row["settings"])
        result.add_row(row["kind"], row["name"], row["description"], settings)
    return result


def _setting_line(setting: Mapping[str, Any]) -> str:
    default = json.dumps(setting["default"]) if "default" in setting else "required"
    return f"{setting['name']} ({'; '.join(filter(None, (default, setting['allowed'])))})"
