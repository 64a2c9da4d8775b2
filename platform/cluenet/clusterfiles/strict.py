"""The base of all models here, and the way from values to problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cluenet.errors import Problem, suggestion
from cluenet.problems import problems_of

Model = TypeVar("Model", bound=BaseModel)
Command = list[str]


class Strict(BaseModel):
    """A map whose every key is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


def read(model: type[Model], values: Any, at: str, problems: list[Problem]) -> Model | None:
    """The model of `values`; None when there are problems, which are added to `problems` with paths that start at `at`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems.extend(Problem(below(at, one.path), one.message) for one in problems_of(error, model))
        return None


def unknown(values: Mapping[str, Any], known: frozenset[str], at: str) -> Iterator[Problem]:
    """For maps whose keys are known and whose values another program reads."""
    for key in sorted(set(values) - known):
        yield Problem(below(at, key), f"unknown key. {suggestion(key, known)}")


def below(at: str, path: object) -> str:
    return ".".join(part for part in (at, str(path)) if part)
