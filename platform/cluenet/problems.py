"""Turns pydantic's errors into `Problem`s in the words of the recipe: dotted path, value, allowed values, next step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, TypeGuard, Union, get_args, get_origin

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


def _model_at(model: type[BaseModel], location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model at a place, also inside lists, maps and optional settings."""
    here: Any = model
    for part in location:
        if _is_model(here):
            field = next((one for name, one in here.model_fields.items() if part in (name, one.alias)), None)
            here = _bare(field.annotation) if field else None
        elif get_origin(here) in (list, tuple, dict):  # tuples are tuple[X, ...]
            here = _bare(get_args(here)[get_origin(here) is dict])
        else:
            return None
    return here if _is_model(here) else None


def _bare(annotation: Any) -> Any:
    """X of `X | None`."""
    inner = [one for one in get_args(annotation) if one is not NoneType]
    return inner[0] if get_origin(annotation) in (UnionType, Union) and len(inner) == 1 else annotation


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel)
