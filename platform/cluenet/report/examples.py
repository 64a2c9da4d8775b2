"""Which examples a report shows, and what there is to show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluenet.errors import CluenetError
from cluenet.prepared import PreparedSet
from cluenet.records import Example, Frames, content_hash
from cluenet.report import looking
from cluenet.report.looking import Asked, Looking, Seen
from cluenet.report.pictures import data_uri, frame_numbers
from cluenet.report.sources import Evaluation, RunData

EACH = 30
"""So many right and so many wrong answers are shown."""

Sample = dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    evaluation: Evaluation
    sample: Sample


def choose(evaluations: Sequence[Evaluation], each: int = EACH) -> list[Chosen]:
    """`each` right and `each` wrong ones, fewer of one kind being made up by the other; the same at every call.

    Taken in turn from every question type of every test set, within a type in the order of a hash of the id: nobody picked.
    """
    known = [Chosen(one, sample) for one in evaluations for sample in one.samples if sample["correct"] is not None]
    right, wrong = ([item for item in known if item.sample["correct"] is kind] for kind in (True, False))
    num_right = min(len(right), max(each, 2 * each - len(wrong)))
    num_wrong = min(len(wrong), 2 * each - num_right)
    return [*_in_turn(right)[:num_right], *_in_turn(wrong)[:num_wrong]]


def _in_turn(items: Sequence[Chosen]) -> list[Chosen]:
    piles: dict[tuple[str, str], list[Chosen]] = {}
    for item in sorted(items, key=lambda item: content_hash(item.sample["id"])):
        piles.setdefault((item.evaluation.name, item.sample["type"]), []).append(item)
    ordered = [piles[key] for key in sorted(piles)]
    return [pile[place] for place in range(max(map(len, ordered), default=0)) for pile in ordered if place < len(pile)]


# ------------------------------------------------------------------------------------------- what there is to show


@dataclass(frozen=True)
class Shot:
    """A shown frame: when it is, in seconds from the start of the clip, and its picture."""

    seconds: float
    uri: str


class Clip:
    """A clip of a prepared set. Its pictures are kept, its frames are not: a report shows dozens of clips."""

    def __init__(self, prepared: PreparedSet, key: str):
        """Raises DataError when the set is damaged, KeyError for an unknown clip."""
        self._prepared, self._key = prepared, key
        self.questions: list[Example] = prepared.examples_of(key)
        frames = self.frames()
        self.duration_seconds = frames.duration_seconds
        numbers = frame_numbers(len(frames.seconds_T))
        self.shots = [Shot(float(frames.seconds_T[n]), data_uri(frames.frames_THWC[n])) for n in numbers]

    def frames(self) -> Frames:
        return self._prepared.frames(self._key)


class Clips:
    """Clips of the prepared sets that evaluations name, each opened once."""

    def __init__(self) -> None:
        self._sets: dict[str, PreparedSet | str] = {}
        self._clips: dict[tuple[str, str], Clip | str] = {}

    def of(self, item: Chosen) -> Clip | str:
        """The clip of a question, or why it cannot be shown."""
        key = item.evaluation.manifest["prepared"], item.sample["clip"]
        if key not in self._clips:
            self._clips[key] = self._open(*key)
        return self._clips[key]

    def _open(self, folder: str, key: str) -> Clip | str:
        try:
            if folder not in self._sets:
                self._sets[folder] = PreparedSet(Path(folder))
            opened = self._sets[folder]
            return opened if isinstance(opened, str) else Clip(opened, key)
        except CluenetError as error:
            self._sets[folder] = str(error)
            return str(error)
        except KeyError:
            return f"{folder}: has no clip {key}; it was prepared again"


def looked_at(run: RunData, chosen: Sequence[Chosen], clips: Clips, look: Looking) -> list[Seen | str]:
    """What the model sees in each, or why it is not shown; empty where the clip is not there either."""
    found: list[Seen | str] = [""] * len(chosen)
    for evaluation in {id(item.evaluation): item.evaluation for item in chosen}.values():
        asked = {
            place: Asked(item.sample, example, clip.frames)
            for place, item in enumerate(chosen)
            if item.evaluation is evaluation and isinstance(clip := clips.of(item), Clip)
            for example in clip.questions
            if example.id == item.sample["id"]
        }
        folder, reason = looking.model_of(run, evaluation, look) if asked else (None, "")
        answers = looking.look(folder, list(asked.values()), evaluation.manifest) if folder else {}
        for place, one in asked.items():
            found[place] = answers.get(one.sample["id"], reason)
    return found
