"""EventHallusion's accuracies and its prediction file, as `eval.py` of Stevetich/EventHallusion reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from cluenet.verdicts import Measure, Share, Verdict, accuracy_share
from cluenet_components.datasets._yes_no import OPTIONS, says_yes

Kind = Literal["entire", "misleading", "interleave"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def measures(verdicts: Sequence[Verdict]) -> list[Measure]:
    """`accuracy` over all questions, then of each kind; beside each how often the answer was yes.

    The right answers of a kind are all the same, so that an accuracy alone tells sight from a habit of saying yes (or no)
    only together with its `yes_rate`. A question without a reply is wrong and no yes.
    """
    kinds = {kind: [one for one in verdicts if one.type == kind] for kind in KINDS}
    parts = [("", verdicts), *((f"{kind}/", rows) for kind, rows in kinds.items() if rows)]
    return [
        share
        for prefix, rows in parts
        for share in (accuracy_share(f"{prefix}accuracy", rows), _yes_rate(prefix, rows))
    ]


def _yes_rate(prefix: str, rows: Sequence[Verdict]) -> Share:
    return Share(f"{prefix}yes_rate", [one.video for one in rows], [float(says_yes(one)) for one in rows])


def result_files(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """`predictions.json`: {kind: {video: its record with `qa` [{question, answer, prediction}], `desc`, `judgement`}}.

    The last two, a description and what a language model thinks of it, are empty: `eval.py` then reports 0 for its accuracy
    of descriptions, which means nothing here. A question without a reply has the prediction null, which it counts as wrong.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        for one in sorted((one for one in verdicts if one.type == kind), key=_place):
            video = found.setdefault(kind, {}).setdefault(_place(one)[0], _record(one))
            video["questions"].append(one.meta["question"])
            video["qa"].append(_reply(one))
    return {"predictions.json": json.dumps(found, indent=4, ensure_ascii=False)}


def _place(one: Verdict) -> tuple[str, int]:
    """Video, and number of the question, from `<video>-<number>`."""
    video, _, number = one.id.rpartition("-")
    return video, int(number)


def _record(one: Verdict) -> dict[str, Any]:
    return {**one.meta["record"], "questions": [], "qa": [], "desc": "", "judgement": ""}


def _reply(one: Verdict) -> dict[str, Any]:
    asked = one.meta["question"] if isinstance(one.meta["question"], Mapping) else {}
    said = f"{OPTIONS[one.prediction].capitalize()}." if isinstance(one.prediction, int) else None
    return {"question": asked.get("question", ""), "answer": asked.get("answer", ""), "prediction": said}
