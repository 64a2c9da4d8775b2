"""Right answers of a test set: what someone would score who knows only how often each is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluenet.report.sources import Evaluation

MOST_ANSWERS = 5
"""Of a type that are named."""


@dataclass(frozen=True)
class Balance:
    """Of one question type. `answers`: the most frequent right answers in words, with their share."""

    kind: str
    questions: int
    different: int
    answers: list[tuple[str, float]]

    @property
    def majority(self) -> float:
        """Share of the most frequent right answer: at most what always giving it would score."""
        return self.answers[0][1]


def balance(evaluation: Evaluation) -> list[Balance]:
    """By question type, of questions whose answer is known."""
    known = [sample for sample in evaluation.samples if sample["answer"] is not None]
    kinds = sorted({sample["type"] for sample in known})
    return [_balance(kind, [sample for sample in known if sample["type"] == kind]) for kind in kinds]


def _balance(kind: str, known: Sequence[dict[str, Any]]) -> Balance:
    counts = Counter(_words(sample) for sample in known)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Balance(kind, len(known), len(ordered), [(words, n / len(known)) for words, n in ordered[:MOST_ANSWERS]])


def _words(sample: dict[str, Any]) -> str:
    answer = sample["answer"]
    return str(sample["options"][answer]) if isinstance(answer, int) else answer
