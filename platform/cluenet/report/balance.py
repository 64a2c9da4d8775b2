"""Right answers of a set: what someone would score who knows only how often each is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cluenet.prepared import PreparedSet
from cluenet.report.sources import Evaluation, RunData, accounts

MOST_ANSWERS = 5
"""Of a type that are named."""

Known = tuple[str, str, int | None]
"""A question whose answer is known: its type, the answer in words, its place among the options (None: it has none)."""


@dataclass(frozen=True)
class Balance:
    """Of one question type. `answers`: the most frequent right answers in words, with their share. `places`: how often
    each option, the first one first, is the right one, as a share; empty for open questions."""

    kind: str
    questions: int
    different: int
    answers: list[tuple[str, float]]
    places: list[float]

    @property
    def majority(self) -> float:
        """Share of the most frequent right answer: at most what always giving it would score."""
        return self.answers[0][1]


def balances(run: RunData) -> dict[str, list[Balance]]:
    """By set: those that the run learned from, where they are still in the store, then those it was evaluated on."""
    learned = [one for one in accounts(run) if one.split != "test" and not one.problem]
    found = {f"{one.split}, {one.name}": balance(PreparedSet(one.folder).known_answers()) for one in learned}
    return found | {f"test, {one.name}": balance(_asked(one)) for one in run.evaluations}


def balance(known: Iterable[Known]) -> list[Balance]:
    """By question type, sorted."""
    by_kind: dict[str, list[tuple[str, int | None]]] = {}
    for kind, words, place in known:
        by_kind.setdefault(kind, []).append((words, place))
    return [_balance(kind, by_kind[kind]) for kind in sorted(by_kind)]


def _balance(kind: str, known: Sequence[tuple[str, int | None]]) -> Balance:
    counts = Counter(words for words, _ in known)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    answers = [(words, n / len(known)) for words, n in ordered[:MOST_ANSWERS]]
    places = Counter(place for _, place in known if place is not None)
    shares = [places[place] / places.total() for place in range(max(places, default=-1) + 1)]
    return Balance(kind, len(known), len(ordered), answers, shares)


def _asked(evaluation: Evaluation) -> Iterator[Known]:
    for sample in evaluation.samples:
        answer = sample["answer"]
        if isinstance(answer, int):
            yield sample["type"], str(sample["options"][answer]), answer
        elif answer is not None:
            yield sample["type"], answer, None
