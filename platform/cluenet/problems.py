"""Turns pydantic's errors into `Problem`s in the words of the recipe: dotted path, value, allowed values, next step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from cluenet.errors import Problem, suggestion
from cluenet.registry import register


def problems_of(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any]) -> list[Problem]:
    """Every problem, those inside component settings included."""
    return list(_problems(error.errors(), (), model, values))


def _problems(
    errors: Sequence[Any], prefix: tuple[Any, ...], model: type[BaseModel] | None, values: Any
) -> Iterator[Problem]:
    for error in errors:
        location = tuple(part for part in error["loc"] if part != "function-plain[parse()]")
        here = prefix + location
        if error["type"] == "component_settings":
            settings = _at(values, location)
            config = _config_of(location, settings)
            yield from _problems(error["ctx"]["errors"], here, config, settings)
        else:
            yield Problem(".".join(map(str, here)), _message(error, location, model))


def _message(error: Any, location: tuple[Any, ...], model: type[BaseModel] | None) -> str:
    if error["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        known = owner.model_fields if owner else ()
        return f"unknown key. {suggestion(str(location[-1]), known)}"
    if error["type"] == "missing":
        return "is required"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])
    return message if error["type"] == "component" or len(shown) > 80 else f"{message}, not {shown}"


def _model_at(model: type[BaseModel] | None, location: tuple[Any, ...]) -> type[BaseModel] | None:
    for part in location:
        if model is None or part not in model.model_fields:
            return None
        annotation = model.model_fields[part].annotation
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return model


def _config_of(location: tuple[Any, ...], settings: Any) -> type[BaseModel] | None:
    words = [part for part in location if isinstance(part, str)]
    kind = {"train": "dataset", "validation": "dataset", "test": "dataset", "fallback_reader": "reader"}.get(
        words[-1] if words else "", words[-1] if words else ""
    )
    registry = register.kinds().get(kind)
    name = settings if isinstance(settings, str) else settings.get("name") if isinstance(settings, Mapping) else None
    if registry is None or not isinstance(name, str) or name not in registry:
        return None
    config: type[BaseModel] = registry[name].Config
    return config


def _at(values: Any, location: tuple[Any, ...]) -> Any:
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values
