"""EventHallusion's accuracies and its prediction file, as `eval.py` of Stevetich/EventHallusion reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from cluenet.verdicts import Measure, Share, Verdict, accuracy_share
from cluenet_components.datasets._yes_no import OPTIONS, says_yes

Kind = Literal["entire", "misleading", "interleave"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DESCRIPTION = "description"
"""In the id of the question for one, in place of a number."""


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

    `desc` is the model's description, "" where none was asked for or given. `judgement` is empty: `gpt4o_judge.py` writes what
    a language model thinks of the description there. `eval.py` counts an empty one as wrong, and the prediction null of
    a question without a reply too.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        for one in sorted((one for one in verdicts if one.type == kind), key=_place):
            video = found.setdefault(kind, {}).setdefault(_place(one)[0], _record(one))
            if one.id.endswith(f"-{DESCRIPTION}"):
                video["desc"] = one.prediction or ""
            else:
                video["questions"].append(one.meta["question"])
                video["qa"].append(_reply(one))
    return {"predictions.json": json.dumps(found, indent=4, ensure_ascii=False)}


def _place(one: Verdict) -> tuple[str, int]:
    """Video, and number of the question, from `<video>-<number>`; the description comes first."""
    video, _, number = one.id.rpartition("-")
    return video, -1 if number == DESCRIPTION else int(number)


def _record(one: Verdict) -> dict[str, Any]:
    return {**one.meta["record"], "questions": [], "qa": [], "desc": "", "judgement": ""}


def _reply(one: Verdict) -> dict[str, Any]:
    asked = one.meta["question"] if isinstance(one.meta["question"], Mapping) else {}
    said = f"{OPTIONS[one.prediction].capitalize()}." if isinstance(one.prediction, int) else None
    return {"question": asked.get("question", ""), "answer": asked.get("answer", ""), "prediction": said}
