"""The rows of CLEVRER's question files: checked field by field, and put as questions with options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluenet_components.datasets._clevrer_metrics import TYPES
from cluenet_components.datasets._rows import BadRowError, Row

VERDICTS = ("correct", "wrong")
"""Options of a question about one proposed answer: the words of the official files."""

ANSWERS: dict[str, tuple[str, ...]] = {
    "count": ("0", "1", "2", "3", "4", "5"),
    "exist": ("yes", "no"),
    "query_color": ("blue", "brown", "cyan", "gray", "green", "purple", "red", "yellow"),
    "query_material": ("metal", "rubber"),
    "query_shape": ("cube", "cylinder", "sphere"),
}
"""Options of a descriptive question by its subtype: all 21 answers that the released files hold."""

ASKED_FOR = {"color": "query_color", "material": "query_material", "shape": "query_shape"}


def checked_scene(row: Row) -> Mapping[str, Any]:
    if row.problem:
        raise BadRowError("malformed", row.problem)
    for field, wanted in (("scene_index", int), ("video_filename", str), ("questions", list)):
        _check_type(row.value, field, wanted)
    return row.value


def _check_type(value: Mapping[str, Any], field: str, wanted: type[Any]) -> None:
    found: Any = value.get(field)
    good = isinstance(found, wanted) and not isinstance(found, bool)
    if not good or (wanted is int and found < 0) or (wanted is str and not found.strip()):
        kind = {int: "a number from 0", str: "a text", list: "a list"}[wanted]
        raise BadRowError("malformed", f"{field} is {found!r:.80}, must be {kind}")


def checked_question(question: Any) -> Mapping[str, Any]:
    if not isinstance(question, dict):
        raise BadRowError("malformed", f"a question is an object, not {question!r:.80}")
    _check_type(question, "question_id", int)
    return question


def type_of(question: Mapping[str, Any]) -> str:
    kind = question.get("question_type")
    if kind not in TYPES:
        raise BadRowError("unknown_type", f"question_type {kind!r:.80} is none of {', '.join(TYPES)}")
    return str(kind)


def choices_of(question: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = question.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadRowError("bad_options", f"choices is {choices!r:.80}, must be a list of one or more")
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise BadRowError("bad_options", f"choices.{place} is {choice!r:.80}, must be an object")
        _check_type(choice, "choice_id", int)
    return choices


def asked(question: Mapping[str, Any], part: Mapping[str, Any], kind: str) -> tuple[str, tuple[str, ...]]:
    """The question as it is put, and its options."""
    _check_type(question, "question", str)
    text = question["question"].strip()
    if kind == "descriptive":
        return text, ANSWERS[_subtype(question)]
    choice = part.get("choice")
    if not isinstance(choice, str) or not choice.strip():
        raise BadRowError("bad_options", f"choice is {choice!r:.80}, must be a text")
    return f"{text} Proposed answer: {choice.strip()}", VERDICTS


def _subtype(question: Mapping[str, Any]) -> str:
    """`question_subtype`, or where the file has none, what the question's words ask for."""
    subtype = question.get("question_subtype")
    if subtype is None:
        words = question["question"].lower().split()
        subtype = next((ASKED_FOR[word] for word in words if word in ASKED_FOR), None)
        subtype = "count" if words[:2] == ["how", "many"] else "exist" if words[0] in ("is", "are") else subtype
    if not isinstance(subtype, str) or subtype not in ANSWERS:
        raise BadRowError("unknown_type", f"question_subtype {subtype!r:.80} is none of {', '.join(ANSWERS)}")
    return subtype
