"""CLEVRER's metrics and submission file.

Rules: `executor/run_oe.py`, `executor/run_mc.py` (validation) and `executor/get_results.py` (test) of
https://github.com/chuangg/CLEVRER. A multiple-choice question may have several right options and is judged twice: per
option, and per question, where every option must be judged right. Papers give the four accuracies per question; their mean
is `average`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from cluenet.verdicts import MeanOf, Measure, Share, Verdict, accuracy_share

CHOICE_TYPES = ("explanatory", "predictive", "counterfactual")
TYPES = ("descriptive", *CHOICE_TYPES)
SUBMISSION = "clevrer_submission.json"
NO_ANSWER = "error"
"""What the official scripts write where their program came to no answer; it counts as wrong."""

Question = list[Verdict]
"""The options of a question that are there; of a descriptive one, itself."""


def measures(verdicts: Sequence[Verdict]) -> list[Measure]:
    """`descriptive`; for the three other types and for all three (`multiple_choice`) `.per_option` and `.per_question`;
    `average` of the four types per question; `questions`: right ones among all, also those whose type is not known."""
    of_type = {kind: [one for one in verdicts if one.type == kind] for kind in TYPES}
    choices = [one for kind in CHOICE_TYPES for one in of_type[kind]]
    return [
        accuracy_share("descriptive", of_type["descriptive"]),
        *(share for kind in CHOICE_TYPES for share in _choice_shares(kind, of_type[kind])),
        *_choice_shares("multiple_choice", choices),
        MeanOf("average", ("descriptive", *(f"{kind}.per_question" for kind in CHOICE_TYPES))),
        _per_question("questions", verdicts),
    ]


def _choice_shares(name: str, verdicts: Sequence[Verdict]) -> list[Share]:
    return [accuracy_share(f"{name}.per_option", verdicts), _per_question(f"{name}.per_question", verdicts)]


def _per_question(name: str, verdicts: Iterable[Verdict]) -> Share:
    questions = _questions(verdicts)
    return Share(name, [one[0].video for one in questions], [float(_right(one)) for one in questions])


def _questions(verdicts: Iterable[Verdict]) -> list[Question]:
    """A row that says nothing of its question is one by itself."""
    found: defaultdict[object, Question] = defaultdict(list)
    for one in verdicts:
        found[(one.meta["scene_index"], one.meta["question_id"]) if "question_id" in one.meta else one.id].append(one)
    return list(found.values())


def _right(question: Question) -> bool:
    """A missing option makes the question wrong."""
    return all(one.correct for one in question) and len(question) == question[0].meta.get("choices", 1)


def submission(verdicts: Sequence[Verdict]) -> str:
    """The evaluation server's JSON: scenes with their questions."""
    named = [one for one in verdicts if "question_id" in one.meta and one.type in TYPES]
    ordered = sorted(
        named, key=lambda one: (one.meta["scene_index"], one.meta["question_id"], one.meta.get("choice_id", 0))
    )
    scenes = groupby(ordered, key=lambda one: one.meta["scene_index"])
    rows = [{"scene_index": scene, "questions": [*map(_answered, _questions(of_scene))]} for scene, of_scene in scenes]
    return json.dumps(rows)


def _answered(question: Question) -> dict[str, Any]:
    number = question[0].meta["question_id"]
    if question[0].type == "descriptive":
        return {"question_id": number, "answer": _said(question[0])}
    options = [one for one in question if "choice_id" in one.meta]
    choices = [{"choice_id": one.meta["choice_id"], "answer": _said(one)} for one in options]
    return {"question_id": number, "choices": choices}


def _said(verdict: Verdict) -> str:
    prediction = verdict.prediction
    return NO_ANSWER if prediction is None else verdict.options[int(prediction)]
