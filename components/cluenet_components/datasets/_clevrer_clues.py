"""What happens in a CLEVRER scene, as clues: its collisions, and objects that enter and leave the camera's view.

Format of an annotation: http://data.csail.mit.edu/clevrer/README.txt. It locates objects in three dimensions and has no
boxes, so these clues have none. An event is at one frame and takes that frame's time; frames past the last one of the
trajectory are not shown, and what happens there is never a clue (predictive questions ask about it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluenet.errors import DataError
from cluenet.records import Clue
from cluenet_components._files import read_text
from cluenet_components.datasets._rows import BadRowError

Word = Annotated[str, Field(pattern=r"^[a-z]+$")]
FrameNumber = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)  # fields that no clue needs are left alone


class _Object(_Part):
    object_id: int
    color: Word
    material: Word
    shape: Word

    @property
    def words(self) -> str:
        return f"the {self.color} {self.material} {self.shape}"


class _Seen(_Part):
    object_id: int
    inside_camera_view: bool


class _Moment(_Part):
    frame_id: FrameNumber
    objects: list[_Seen]


class _Collision(_Part):
    object_ids: Annotated[list[int], Field(min_length=2, max_length=2)]
    frame_id: FrameNumber


class _Annotation(_Part):
    object_property: list[_Object]
    motion_trajectory: Annotated[list[_Moment], Field(min_length=1)]
    collision: list[_Collision]


@dataclass(frozen=True)
class _Event:
    frame: int
    verb: str  # hits, enters, exits
    objects: tuple[int, ...]


def clues_of(file: Path, fps: float) -> tuple[Clue, ...]:
    """The events of the scene in time order. `concepts` hold one word each: an object is called by its colour there.

    fps: frames per second of the video. Raises BadRowError bad_clues with the file, the field and its value.
    """
    try:
        annotation = _Annotation.model_validate_json(read_text(file))
        names = {one.object_id: one for one in annotation.object_property}
        return tuple(_clue(event, names, fps) for event in sorted(_events(annotation), key=lambda one: one.frame))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadRowError("bad_clues", f"{file}: {where}: {first['msg']}, not {first['input']!r:.80}") from None
    except KeyError as error:
        raise BadRowError("bad_clues", f"{file}: object {error.args[0]!r} is not in object_property") from None
    except DataError as error:
        raise BadRowError("bad_clues", str(error)) from None


def _events(annotation: _Annotation) -> Iterator[_Event]:
    end = annotation.motion_trajectory[-1].frame_id
    shown = [one for one in annotation.collision if one.frame_id <= end]
    yield from (_Event(one.frame_id, "hits", tuple(one.object_ids)) for one in shown)
    for before, after in pairwise(annotation.motion_trajectory):
        there, here = _in_view(before), _in_view(after)
        yield from (_Event(after.frame_id, "enters", (number,)) for number in sorted(here - there))
        yield from (_Event(after.frame_id, "exits", (number,)) for number in sorted(there - here))


def _in_view(moment: _Moment) -> set[int]:
    return {one.object_id for one in moment.objects if one.inside_camera_view}


def _clue(event: _Event, names: Mapping[int, _Object], fps: float) -> Clue:
    who, *whom = (names[number] for number in event.objects)
    text = " ".join([who.words, event.verb, *(one.words for one in whom)])
    concepts = {"who": who.color, "what": event.verb, **({"whom": whom[0].color} if whom else {})}
    return Clue(text, event.frame / fps, (event.frame + 1) / fps, concepts=concepts)
