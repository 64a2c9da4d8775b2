"""Ten questions to look at, half of them answered wrongly: frames, clues on a time line, what was kept, probabilities."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cluenet.errors import CluenetError
from cluenet.prepared import PreparedSet
from cluenet.records import Frames, content_hash
from cluenet.report.figures import bar, frame_numbers, nearest, percent
from cluenet.report.sources import Evaluation

EACH = 5
MOST_FRAMES = 8
LARGEST_SIDE = 200
SMALL = 96
"""Frames up to this side are stored without loss: they are tiny, and the browser enlarges them."""

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


def views(chosen: Sequence[Chosen]) -> list[dict[str, Any]]:
    """What the template shows of each."""
    sets: dict[str, PreparedSet | str] = {}
    return [_view(item, sets) for item in chosen]


def _view(item: Chosen, sets: dict[str, PreparedSet | str]) -> dict[str, Any]:
    sample = item.sample
    frames = _frames(item, sets)
    times = _track(sample, frames)
    return {
        "set": item.evaluation.name, **{key: sample[key] for key in ("id", "type", "video", "question", "correct", "chain")},
        "generated_chain": sample.get("generated_chain"),
        "options": list(_options(sample)), "prediction": _words(sample, sample["prediction"]), "answer": _words(sample, sample["answer"]),
        "frames": [] if isinstance(frames, str) else list(_pictures(sample, frames)),
        "problem": frames if isinstance(frames, str) else "",
        "start": times[0], "end": times[1],
        "clues": [_line(clue, times, "kept" if clue["kept"] else "dropped") for clue in sample["clues"]],
        "true_clues": None if sample["true_clues"] is None else [_line(clue, times, "true") for clue in sample["true_clues"]],
        "rows": [{"row": row, "answer": _words(sample, verdict["prediction"]), "correct": verdict["correct"]}
                 for row, verdict in sample["rows"].items()],
    }  # fmt: skip


def _options(sample: Sample) -> Iterator[dict[str, Any]]:
    for index, (text, logprob) in enumerate(zip(sample["options"], sample["option_logprobs"])):
        yield {"text": text, "probability": math.exp(logprob), "right": index == sample["answer"],
               "chosen": index == sample["prediction"], "letter": chr(65 + index)}  # fmt: skip


def _words(sample: Sample, answer: int | str | None) -> str:
    if answer is None:
        return "(the reply names no option)"
    return str(sample["options"][answer]) if isinstance(answer, int) else answer


def _line(clue: Mapping[str, Any], track: tuple[float, float], kind: str) -> dict[str, Any]:
    """A clue on the track of the clip's seconds."""
    timed = clue["start_seconds"] is not None
    return {"text": clue["text"], "kind": kind, "gate": clue.get("gate"), "start": clue["start_seconds"], "end": clue["end_seconds"],
            "bar": bar(clue["start_seconds"], clue["end_seconds"], *track) if timed else None}  # fmt: skip


def _track(sample: Sample, frames: Frames | str) -> tuple[float, float]:
    """First and last second shown: the clip, or what its clues span where the clip is not there."""
    start = sample["start_seconds"]
    if not isinstance(frames, str):
        return start, start + frames.duration_seconds
    ends = [
        clue["end_seconds"]
        for clue in (*sample["clues"], *(sample["true_clues"] or ()))
        if clue["end_seconds"] is not None
    ]
    return start, max([sample["end_seconds"] or start + 1.0, *ends])


def _frames(item: Chosen, sets: dict[str, PreparedSet | str]) -> Frames | str:
    """The clip's frames, or why they cannot be shown."""
    folder = item.evaluation.manifest["prepared"]
    try:
        if folder not in sets:
            sets[folder] = PreparedSet(Path(folder))
        opened = sets[folder]
        return opened if isinstance(opened, str) else opened.frames(item.sample["clip"])
    except CluenetError as error:
        sets[folder] = str(error)
        return str(error)
    except KeyError:
        return f"{folder}: has no clip {item.sample['clip']}; it was prepared again"


def _pictures(sample: Sample, frames: Frames) -> Iterator[dict[str, Any]]:
    """Some frames, each with the boxes of clues whose time is nearest to it."""
    numbers = frame_numbers(len(frames.seconds_T), MOST_FRAMES)
    times = [float(frames.seconds_T[number]) + sample["start_seconds"] for number in numbers]
    boxes: list[list[dict[str, Any]]] = [[] for _ in numbers]
    for kind, clue, box in _boxes(sample):
        boxes[nearest(times, box["seconds"])].append(_placed(kind, clue, box))
    for number, seconds, here in zip(numbers, times, boxes):
        yield {"uri": data_uri(frames.frames_THWC[number]), "seconds": seconds, "boxes": here}


def _boxes(sample: Sample) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, float]]]:
    for clue in sample["true_clues"] or ():
        yield from (("true", clue, box) for box in clue["boxes"])
    for clue in sample["clues"]:
        if clue["box"] is not None:
            yield "kept" if clue["kept"] else "dropped", clue, clue["box"]


def _placed(kind: str, clue: Mapping[str, Any], box: Mapping[str, float]) -> dict[str, Any]:
    return {"kind": kind, "text": clue["text"], "left": percent(box["x1"]), "top": percent(box["y1"]),
            "width": percent(box["x2"] - box["x1"]), "height": percent(box["y2"] - box["y1"])}  # fmt: skip


def data_uri(frame_HWC: Any) -> str:
    """uint8 RGB as an image inside the page: PNG where it is small, else a JPEG of at most LARGEST_SIDE."""
    picture, buffer = Image.fromarray(frame_HWC), io.BytesIO()
    kind = "png" if max(picture.size) <= SMALL else "jpeg"
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    picture.save(buffer, kind.upper(), **({"quality": 82} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
