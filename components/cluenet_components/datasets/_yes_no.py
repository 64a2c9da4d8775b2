"""Questions that are answered yes or no."""

from __future__ import annotations

from typing import Any

from cluenet.verdicts import Verdict
from cluenet_components.datasets._rows import BadRowError

OPTIONS = ("yes", "no")


def answer_of(value: Any) -> int:
    """The index in OPTIONS of "yes", "No." and the like. Raises BadRowError answer_outside_options."""
    word = value.strip().rstrip(".").casefold() if isinstance(value, str) else None
    if word not in OPTIONS:
        raise BadRowError("answer_outside_options", f"answer {value!r:.80} is none of yes, no")
    return OPTIONS.index(word)


def says_yes(one: Verdict) -> bool:
    """A missing prediction says neither."""
    return one.prediction == OPTIONS.index("yes")
