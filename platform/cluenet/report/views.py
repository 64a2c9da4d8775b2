"""What the example browser says of a question: frames, clues on a time line, attention, and what every clue does to the options."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from string import ascii_uppercase
from typing import Any

from cluenet.report.chains import linked
from cluenet.report.examples import Chosen, Clip, Clips, Sample, looked_at
from cluenet.report.looking import Looking, Seen
from cluenet.report.pictures import heat_uri, nearest
from cluenet.report.sources import RunData
from cluenet.report.tracks import bar, percent

View = dict[str, Any]


def views(run: RunData, chosen: Sequence[Chosen], look: Looking = "auto") -> list[View]:
    """What the template shows of each, in the order of `chosen`."""
    clips = Clips()
    seen = looked_at(run, chosen, clips, look)
    return [_view(item, clips.of(item), one) for item, one in zip(chosen, seen, strict=True)]


def _view(item: Chosen, found: Clip | str, seen: Seen | str) -> View:
    sample, looked = item.sample, seen if isinstance(seen, Seen) else None
    clip = found if isinstance(found, Clip) else None
    track, times = _track(sample, clip), [shot.seconds + sample["start_seconds"] for shot in clip.shots] if clip else []
    clues = [_stated(item, place, track, times, looked, clip) for place in range(len(sample["clues"]))]
    labels = [_labelled(clue, place, track, times) for place, clue in enumerate(sample["true_clues"] or ())]
    return {
        "set": item.evaluation.name, **{key: sample[key] for key in ("id", "type", "video", "question", "correct")},
        "prediction": _words(sample, sample["prediction"]), "answer": _words(sample, sample["answer"]),
        "hallucinated": any(clue["invented"] for clue in clues) or _false_yes(sample),
        "false_yes": _false_yes(sample), "dropped": any(not clue["kept"] for clue in clues),
        "options": list(_options(sample)), "columns": list(_columns(sample, looked)),
        "frames": list(_frames(clip, [*clues, *labels], times)) if clip else [], "problem": "" if clip else found,
        "unseen": "" if looked else seen, "start": track[0], "end": track[1],
        "clues": clues, "labels": labels, "labelled": sample["true_clues"] is not None,
        "chains": [(who, linked(text, parts)) for who, text, parts in _chains(sample, clues, labels) if text],
        "rows": [{"row": row, "answer": _words(sample, verdict["prediction"]), "correct": verdict["correct"]}
                 for row, verdict in sample["rows"].items()],
    }  # fmt: skip


def _chains(sample: Sample, clues: list[View], labels: list[View]) -> list[tuple[str, str | None, list[View]]]:
    written = sample.get("generated_chain")
    return [("The model reasons", written, clues), ("Labelled reasoning", sample["chain"], [*clues, *labels])]


def _words(sample: Sample, answer: int | str | None) -> str:
    if answer is None:
        return "(the reply names no option)"
    return str(sample["options"][answer]) if isinstance(answer, int) else answer


def _track(sample: Sample, clip: Clip | None) -> tuple[float, float]:
    """First and last second shown: the clip, or what its clues span where the clip is not there."""
    start = sample["start_seconds"]
    if clip is not None:
        return start, start + clip.duration_seconds
    clues = (*sample["clues"], *(sample["true_clues"] or ()))
    ends = [clue["end_seconds"] for clue in clues if clue["end_seconds"] is not None]
    return start, max([sample["end_seconds"] or start + 1.0, *ends])


# ---------------------------------------------------------------------------------------------------------- clues


def _stated(
    item: Chosen, place: int, track: tuple[float, float], times: Sequence[float], seen: Seen | None, clip: Clip | None
) -> View:
    sample, clue = item.sample, item.sample["clues"][place]
    attention = seen.attention[place] if seen else ()
    boxes = [] if clue["box"] is None else [clue["box"]]
    return {
        **_placed(clue, f"c{place}", boxes, track, times), "kind": "kept" if clue["kept"] else "dropped", "kept": clue["kept"],
        "number": place + 1, "gate": clue["gate"], **_worth(sample, place, seen),
        "invented": clue["kept"] and sample["true_clues"] is not None and not _is_fact(clue, item, clip),
        "heat": heat_uri(attention, seen.shape, _blocks(times, sample, seen)) if attention and seen else "",
    }  # fmt: skip


def _labelled(clue: Mapping[str, Any], place: int, track: tuple[float, float], times: Sequence[float]) -> View:
    return {**_placed(clue, f"t{place}", clue["boxes"], track, times), "kind": "true", "heat": ""}


def _placed(
    clue: Mapping[str, Any],
    key: str,
    boxes: Sequence[Mapping[str, float]],
    track: tuple[float, float],
    times: Sequence[float],
) -> View:
    """A clue on the track of the clip's seconds, and the shown frames that it is about."""
    start, end = clue["start_seconds"], clue["end_seconds"]
    moments = [box["seconds"] for box in boxes] or ([] if start is None else [(start + end) / 2])
    within = [place for place, at in enumerate(times) if start is not None and start <= at <= end]
    frames = sorted({*within, *(nearest(times, at) for at in moments if times)})
    return {
        "key": key, "text": clue["text"], "boxes": boxes, "start": start, "end": end, "frames": frames,
        "bar": None if start is None else bar(start, end, *track),
    }  # fmt: skip


def _blocks(times: Sequence[float], sample: Sample, seen: Seen) -> list[int]:
    """The block of visual tokens that each shown frame is nearest to."""
    return [nearest(seen.block_seconds, at - sample["start_seconds"]) for at in times]


def _worth(sample: Sample, place: int, seen: Seen | None) -> View:
    """Utility to the right answer in nats, as evaluation measured it, else as leaving the clue out shows it here."""
    measured = ((sample.get("diagnostics") or {}).get("filter") or {}).get("utility")
    if measured:
        kind = sample["diagnostics"]["filter"]["kind"].replace("_", "-")
        return {"utility": measured[place], "utility_kind": kind}
    answer = sample["answer"]
    if seen is None or not seen.shown or not isinstance(answer, int):
        return {"utility": None, "utility_kind": ""}
    gained = math.log(max(seen.shown[answer], 1e-12)) - math.log(max(seen.changed[place][answer], 1e-12))
    return {"utility": gained if sample["clues"][place]["kept"] else -gained, "utility_kind": "leave-one-out"}


def _is_fact(clue: Mapping[str, Any], item: Chosen, clip: Clip | None) -> bool:
    """Whether it says, whatever the time, what a labelled clue of any question about this clip says, or a true distractor."""
    told = {tuple(true["words"][1:]) for true in item.evaluation.facts_of(item.sample["clip"])}
    texts = {
        true.text
        for example in (clip.questions if clip else ())
        for true in (*(example.clues or ()), *example.distractors)
    }
    return tuple(clue["words"][1:]) in told or clue["text"] in texts


def _false_yes(sample: Sample) -> bool:
    """Whether it says yes to a yes/no question whose answer is no."""
    if sorted(option.casefold() for option in sample["options"]) != ["no", "yes"]:
        return False
    says, right = (_words(sample, sample[key]).casefold() for key in ("prediction", "answer"))
    return (says, right) == ("yes", "no")


# -------------------------------------------------------------------------------------------------------- options


def _options(sample: Sample) -> Iterator[View]:
    """In the order in which the model was shown them; `index` is that of the stored order."""
    scored = "reply" not in sample
    letters = chain(ascii_uppercase, map(str, count(len(ascii_uppercase) + 1)))
    for letter, index in zip(letters, sample["order"]):
        logprob = sample["option_logprobs"][index] if scored else None
        yield {
            "index": index, "letter": letter, "text": sample["options"][index], "right": index == sample["answer"],
            "chosen": index == sample["prediction"], "probability": None if logprob is None else math.exp(logprob),
        }  # fmt: skip


def _columns(sample: Sample, seen: Seen | None) -> Iterator[View]:
    """Probabilities of the options when clues change: without each kept one, with each dropped one, without all."""
    if seen:
        for place, (clue, values) in enumerate(zip(sample["clues"], seen.changed)):
            words = f"without {place + 1}" if clue["kept"] else f"with {place + 1} too"
            yield {"key": f"c{place}", "words": words, "values": values}
    nothing = sample["rows"].get("none")
    if nothing and "reply" not in nothing and sample["options"]:
        yield {"key": "", "words": "no clues", "values": [math.exp(value) for value in nothing["option_logprobs"]]}


# --------------------------------------------------------------------------------------------------------- frames


def _frames(clip: Clip, clues: Sequence[View], times: Sequence[float]) -> Iterator[View]:
    """Every shown frame with the boxes of clues whose time is nearest to it."""
    for place, (shot, seconds) in enumerate(zip(clip.shots, times, strict=True)):
        boxes = [_box(clue, box) for clue in clues for box in clue["boxes"] if nearest(times, box["seconds"]) == place]
        about = [clue["text"] for clue in clues if place in clue["frames"]]
        yield {"uri": shot.uri, "seconds": seconds, "boxes": boxes, "about": about}


def _box(clue: View, box: Mapping[str, float]) -> View:
    return {"kind": clue["kind"], "key": clue["key"], "text": clue["text"], "left": percent(box["x1"]), "top": percent(box["y1"]),
            "width": percent(box["x2"] - box["x1"]), "height": percent(box["y2"] - box["y1"])}  # fmt: skip
