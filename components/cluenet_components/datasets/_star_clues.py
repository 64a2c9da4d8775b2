"""STAR's situation graphs as clues: what a person does, and how person and objects relate, with times and boxes.

Format (https://github.com/csbobby/STAR_Benchmark, generator.py): {frame key: {"rel_pairs", "rel_labels", "actions", "bbox",
"bbox_labels"}}; a pair reads subject, object; a box is [x1, y1, x2, y2] in pixels of the video, or null where it is not
known. A fact that neighbouring annotated frames share is one clue, from the first of them to the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cluenet.records import Box, Clue, VideoRef
from cluenet_components.datasets._rows import BadRowError
from cluenet_components.datasets._star_classes import Classes

PERSON = "o000"
SMALL_WORDS = frozenset({"in", "on", "of", "the", "from", "by", "it", "have"})
"""Of a relation's words these say least: `in_front_of` is named by `front`, `on` alone by itself."""


def _listed(value: Any) -> Any:
    return [] if value is None else value


def _many(kind: Any) -> Any:
    return Annotated[list[kind], BeforeValidator(_listed)]


Pixels = Annotated[list[float], Field(min_length=4, max_length=4)]


class Situation(BaseModel):
    """One annotated frame. Fields that no clue needs are left alone; null is the empty list."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    rel_pairs: _many(Annotated[list[str], Field(min_length=2, max_length=2)]) = []
    rel_labels: _many(str) = []
    actions: _many(str) = []
    bbox: _many(Pixels | None) = []
    bbox_labels: _many(str) = []

    @model_validator(mode="after")
    def _paired(self) -> Situation:
        for one, other in (("rel_pairs", "rel_labels"), ("bbox", "bbox_labels")):
            if len(getattr(self, one)) != len(getattr(self, other)):
                raise ValueError(f"{len(getattr(self, one))} {one} but {len(getattr(self, other))} {other}")
        return self

    def boxes_of(self, thing: str) -> Iterator[list[float]]:
        """In pixels; none where the box is null."""
        return (box for box, label in zip(self.bbox, self.bbox_labels, strict=True) if label == thing and box)


_SITUATIONS = TypeAdapter(dict[Annotated[str, Field(pattern=r"^\d+$")], Situation])


@dataclass(frozen=True)
class Fact:
    """What one frame says. `things`: ids of the objects whose boxes show where."""

    rank: int  # actions before relations: they are what questions are about
    text: str
    concepts: tuple[tuple[str, str], ...]
    things: tuple[str, ...]


@dataclass
class _Run:
    """A fact over neighbouring frames."""

    fact: Fact
    seconds: list[float] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    def clue(self) -> Clue:
        return Clue(self.fact.text, self.seconds[0], self.seconds[-1], tuple(self.boxes), dict(self.fact.concepts))


def clues_of(
    situations: Any,
    classes: Classes,
    seconds_of: Callable[[int], float],
    clip: VideoRef,
    size: tuple[int, int],
) -> tuple[Clue, ...] | None:
    """Clues of the frames within `clip`, both ends included: actions first, each kind by time; None without any.

    seconds_of: time of a frame key. size: (width, height) of the video in pixels. Frames outside of the clip tell nothing,
    for what a question asks may happen there. Raises BadRowError bad_clues.
    """
    end = math.inf if clip.end_seconds is None else clip.end_seconds
    frames = _checked(situations)
    times = {key: seconds_of(int(key)) for key in frames}
    inside = [key for key in sorted(frames, key=int) if clip.start_seconds <= times[key] <= end]
    runs: list[_Run] = []
    going: dict[Fact, _Run] = {}
    for key in inside:
        going = {fact: going.get(fact) or _Run(fact) for fact in _facts(frames[key], classes, key)}
        for fact, run in going.items():
            runs += [] if run.seconds else [run]
            run.seconds.append(times[key])
            run.boxes += _boxes(frames[key], fact.things, times[key], size)
    return tuple(run.clue() for run in sorted(runs, key=lambda run: (run.fact.rank, run.seconds[0]))) or None


def _checked(situations: Any) -> dict[str, Situation]:
    try:
        return _SITUATIONS.validate_python(situations)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, ("situations", *first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        raise BadRowError("bad_clues", f"{path}: {message}, not {first['input']!r:.80}") from None


def _facts(situation: Situation, classes: Classes, key: str) -> dict[Fact, None]:
    """Without repeats, in their order."""
    name = partial(_name, key=key)
    actions = [_action(action, name(classes.actions, action, "actions"), classes) for action in situation.actions]
    relations = [
        _relation(
            name(classes.objects, subject, "rel_pairs"), name(classes.relations, label, "rel_labels"),
            name(classes.objects, thing, "rel_pairs"), (subject, thing),
        )
        for (subject, thing), label in zip(situation.rel_pairs, situation.rel_labels, strict=True)
    ]  # fmt: skip
    return dict.fromkeys([*actions, *relations])


def _name(names: Mapping[str, str], wanted: str, part: str, *, key: str) -> str:
    if wanted not in names:
        raise BadRowError("bad_clues", f"situations.{key}.{part}: {wanted!r} is no known class")
    return names[wanted]


def _action(action: str, text: str, classes: Classes) -> Fact:
    if action not in classes.doings:
        return Fact(0, text, (), (PERSON,))
    verb, thing = classes.doings[action]
    concepts = {"who": "person", "what": verb, "whom": classes.objects[thing]}
    return Fact(0, text, _words(concepts), (PERSON, thing))


def _relation(subject: str, relation: str, thing: str, things: tuple[str, str]) -> Fact:
    words = relation.split("_")
    said = next((word for word in words if word not in SMALL_WORDS), words[0])
    concepts = {"who": subject, "what": said, "whom": thing}
    return Fact(1, f"{subject} {' '.join(words)} {thing}", _words(concepts), things)


def _words(concepts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """A concept is one word."""
    return tuple((role, word) for role, word in concepts.items() if len(word.split()) == 1)


def _boxes(situation: Situation, things: Sequence[str], seconds: float, size: tuple[int, int]) -> Iterator[Box]:
    """As fractions, cut at the frame's edges; one with no area inside the frame shows nothing."""
    width, height = size
    for pixels in (box for thing in things for box in situation.boxes_of(thing)):
        x1, x2 = (min(max(x / width, 0.0), 1.0) for x in pixels[0::2])
        y1, y2 = (min(max(y / height, 0.0), 1.0) for y in pixels[1::2])
        if x1 < x2 and y1 < y2:
            yield Box(seconds, x1, y1, x2, y2)
