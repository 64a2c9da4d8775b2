"""Right answers of a set: what someone would score who knows only how often each is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cluenet.errors import CluenetError
from cluenet.prepared import PreparedSet
from cluenet.report.sources import Account, Evaluation

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


@dataclass(frozen=True)
class SetBalance:
    """Of one set, by question type, sorted. `problem`: why it cannot be said."""

    name: str
    lines: list[Balance]
    problem: str = ""


def balances(evaluations: Sequence[Evaluation], accounts: Sequence[Account]) -> list[SetBalance]:
    """Of the sets that a run learned from, as far as they are still in the store, then of those it was evaluated on."""
    learned = [_learned(one) for one in accounts if one.split != "test" and not one.problem]
    return [*learned, *(SetBalance(f"test, {one.name}", balance(_asked(one))) for one in evaluations)]


def _learned(account: Account) -> SetBalance:
    name = f"{account.split}, {account.name}"
    try:
        return SetBalance(name, balance(PreparedSet(account.folder).known_answers()))
    except CluenetError as error:
        return SetBalance(name, [], str(error))


def balance(known: Iterable[Known]) -> list[Balance]:
    """By question type, sorted."""
    words_of: dict[str, Counter[str]] = {}
    places_of: dict[str, Counter[int | None]] = {}
    for kind, words, place in known:
        words_of.setdefault(kind, Counter())[words] += 1
        places_of.setdefault(kind, Counter())[place] += 1
    return [_balance(kind, words_of[kind], places_of[kind]) for kind in sorted(words_of)]


def _balance(kind: str, words: Counter[str], places: Counter[int | None]) -> Balance:
    questions, ordered = words.total(), sorted(words.items(), key=lambda item: (-item[1], item[0]))
    with_options = questions - places.pop(None, 0)
    shares = [places[place] / with_options for place in range(max(places, default=-1) + 1)]
    return Balance(kind, questions, len(ordered), [(one, n / questions) for one, n in ordered[:MOST_ANSWERS]], shares)


def _asked(evaluation: Evaluation) -> Iterator[Known]:
    for sample in evaluation.samples:
        answer = sample["answer"]
        if isinstance(answer, int):
            yield sample["type"], str(sample["options"][answer]), answer
        elif answer is not None:
            yield sample["type"], answer, None
