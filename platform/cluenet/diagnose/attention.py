"""Right against wrong answers: where the model looked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cluenet.diagnose.looking import Gaze, Seen
from cluenet.records import content_hash

EACH = 2
"""Examples of right and of wrong answers."""
MOST_LOOKS = 3
"""Of an example."""

NO_ATTENTION = "the model states no clues, and its answer pass sees no video, so there is no attention to show"
NO_BOXES = "no labelled clue of these questions has a box, so nothing says where the model should look"


def attention_block(
    seen: Sequence[Seen], *, of: str | None, layer: int | None, scores: Mapping[str, Any], seed: int
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """`attention` of diagnostics.json, and notes. scores: `perception` of `metrics.biases`, empty without boxes."""
    if of is None or not any(one.gazes for one in seen):
        return None, {"attention": NO_ATTENTION}
    looks = [_look(one, gaze) for one in seen for gaze in one.gazes]
    shown = [_example(one) for one in _chosen(seen, seed)]
    notes = {} if scores else {"attention.scores": NO_BOXES}
    return {"of": of, "layer": layer, "scores": dict(scores), "looks": looks, "examples": shown}, notes


def _look(one: Seen, gaze: Gaze) -> dict[str, Any]:
    return {"question": one.sample["id"], "correct": one.sample["correct"], "text": gaze.text, "kept": gaze.kept, **_found(gaze)}  # fmt: skip


def _found(gaze: Gaze) -> dict[str, Any]:
    energy = gaze.energy or {"share": None, "chance": None}
    return {
        "pointing": gaze.pointing, "pointing_chance": gaze.pointing_chance,
        "energy": energy["share"], "energy_chance": energy["chance"],
    }  # fmt: skip


def _chosen(seen: Sequence[Seen], seed: int) -> Iterator[Seen]:
    """EACH right and EACH wrong ones in the order of a hash, so that nobody picked; those with boxes first."""
    looked = [one for one in seen if _shown(one)]
    looked.sort(key=lambda one: (not _judged(one), content_hash(seed, one.sample["id"])))
    for verdict in (True, False):
        yield from [one for one in looked if one.sample["correct"] is verdict][:EACH]


def _shown(one: Seen) -> list[Gaze]:
    """The kept clues that look anywhere, the first ones; the dropped ones where none is kept."""
    looking = [gaze for gaze in one.gazes if gaze.attention_N.sum() > 0]
    return ([gaze for gaze in looking if gaze.kept] or looking)[:MOST_LOOKS]


def _judged(one: Seen) -> bool:
    return any(gaze.energy is not None for gaze in _shown(one))


def _example(one: Seen) -> dict[str, Any]:
    sample, grid = one.sample, one.grid
    looks = [
        {"text": gaze.text, "kept": gaze.kept, **_found(gaze), "heat": gaze.attention_N.tolist()}
        for gaze in _shown(one)
    ]
    return {
        "question": sample["id"], "asked": sample["question"],
        **{key: sample[key] for key in ("type", "clip", "correct", "options", "answer", "prediction")},
        "shape": [grid.blocks, grid.rows, grid.cols], "seconds": list(grid.seconds),
        "boxes": [asdict(box) for clue in one.clues for box in clue.boxes], "looks": looks,
    }  # fmt: skip
