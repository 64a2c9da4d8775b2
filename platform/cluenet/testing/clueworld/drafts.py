"""A question before its options are shuffled and it gets its id."""

from __future__ import annotations

from dataclasses import dataclass

from cluenet.records import Clue


@dataclass(frozen=True)
class Draft:
    question: str
    answer: str
    wrong: tuple[str, ...]  # the other options
    clues: tuple[Clue, ...]  # in time order
    half: str = ""  # of a pair of questions that the type asks: which one it is
