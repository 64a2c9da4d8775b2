"""Turns pydantic's errors into `Problem`s in the words of the recipe: dotted path, value, allowed values, next step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from cluenet.errors import Problem, suggestion


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every problem, those inside the settings of a component or of a choice included."""
    return list(_problems(error.errors(), (), model))


def _problems(errors: Sequence[Any], prefix: tuple[Any, ...], model: type[BaseModel]) -> Iterator[Problem]:
    for error in errors:
        location = tuple(part for part in error["loc"] if part != "function-plain[parse()]")
        here = prefix + location
        if error["type"] == "component_settings":
            yield from _problems(error["ctx"]["errors"], here, error["ctx"]["config"])
        else:
            yield Problem(".".join(map(str, here)), _message(error, location, model))


def _message(error: Any, location: tuple[Any, ...], model: type[BaseModel]) -> str:
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
