"""Clues, distractors and a reasoning chain as people write them in JSON, checked value by value.

    {"clues": [{"text": "the red ball hits the cup", "start_seconds": 1.2, "end_seconds": 1.9,
                "boxes": [{"seconds": 1.5, "x1": 0.1, "y1": 0.2, "x2": 0.4, "y2": 0.6}],
                "concepts": {"who": "ball", "what": "hits", "whom": "cup"}}],
     "distractors": [{"text": "a dog sleeps"}],
     "chain": "The ball hits the cup, so the cup falls."}

Only a clue's `text` is required. `clues`: null says "not labelled", [] says "labelled, and no clue is needed".
Times are seconds from the start of the video file; boxes are fractions of the frame, origin top left.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cluenet.errors import suggestion
from cluenet.records import CONCEPT_ROLES, Box, Clue


class Labels(BaseModel):
    """What one question is labelled with. Unknown keys, wrong types and values out of range are errors."""

    # pydantic hands this configuration on to the plain dataclasses Clue and Box, so strictness reaches every value
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    clues: tuple[Clue, ...] | None = None
    distractors: tuple[Clue, ...] = ()
    chain: str | None = Field(None, min_length=1)

    @field_validator("clues", "distractors")
    @classmethod
    def _checked(cls, clues: tuple[Clue, ...] | None) -> tuple[Clue, ...] | None:
        for number, clue in enumerate(clues or ()):
            for role, word in clue.concepts.items():
                if len(word.split()) != 1:
                    raise ValueError(f"clue {number}: concepts.{role} is {word!r}, must be one word")
            for box in clue.boxes:
                if box.seconds < 0:
                    raise ValueError(f"clue {number}: a box's seconds are {box.seconds}, must be >= 0")
        return clues


def problems(error: ValidationError, model: type[Labels]) -> list[str]:
    """One line per problem: dotted path, what is wrong, the value, and the known keys where a key is unknown."""
    return [_problem(item, model) for item in error.errors(include_url=False)]


def _problem(item: Any, model: type[Labels]) -> str:
    path = ".".join(map(str, item["loc"]))
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{path}: unknown key. {suggestion(str(item['loc'][-1]), _known_keys(item['loc'], model))}"
    if item["type"].startswith("missing"):
        return f"{path}: is required"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if item["type"] in ("value_error", "json_invalid") else f", not {item['input']!r:.80}"
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _known_keys(location: tuple[Any, ...], model: type[Labels]) -> list[str]:
    if len(location) == 1:
        return list(model.model_fields)
    if "concepts" in location:
        return list(CONCEPT_ROLES)
    owner = Box if "boxes" in location[:-1] else Clue
    return list(owner.__dataclass_fields__)
