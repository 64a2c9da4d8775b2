"""The balance of right answers, of prepared sets and of evaluated ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluenet.prepared import PreparedSet
from cluenet.report.balance import balance, balances
from cluenet.report.sources import Evaluation, RunData
from helpers.models import example
from helpers.prepared import prepared_set

RIGHT = [("who", ("red", "blue"), 0), ("who", ("blue", "red"), 1), ("who", ("red", "blue", "green"), 2), ("open", (), "a dog"), ("open", (), None)]  # fmt: skip


def asked(number: int):
    kind, options, answer = RIGHT[number]
    return replace(example(number), type=kind, options=options, answer=answer)


def test_answers_are_counted_by_their_words_and_by_their_place(tmp_path: Path) -> None:
    prepared_set(tmp_path / "set", clips=1, questions=(5,), make=asked)
    opened, who = balance(PreparedSet(tmp_path / "set").known_answers())
    assert (opened.kind, opened.questions, opened.different, opened.places) == ("open", 1, 1, [])
    assert opened.answers == [("a dog", 1.0)]
    assert (who.kind, who.questions, who.different, who.majority) == ("who", 3, 2, 2 / 3)
    assert who.answers == [("red", 2 / 3), ("green", 1 / 3)]
    assert who.places == [1 / 3, 1 / 3, 1 / 3]


def test_what_a_run_learned_from_stands_before_what_it_was_asked(tmp_path: Path) -> None:
    store = tmp_path / "store"
    prepared_set(store / "prepared" / "aaa", clips=1, questions=(4,), make=asked)
    samples = [
        {"type": "who", "options": ["red", "blue"], "answer": 1},
        {"type": "open", "options": [], "answer": "a cat"},
    ]
    evaluation = Evaluation("fake-test", {}, samples, {"prepared": str(store / "prepared" / "gone")})
    addresses = {"train": ["aaa"], "validation": ["gone"], "test": ["gone"]}
    run = RunData(tmp_path, {"store": str(store)}, "", {"addresses": addresses}, [], [evaluation], {})
    found = balances(run)
    assert list(found) == ["train, aaa", "test, fake-test"]
    assert [(line.kind, line.answers[0][0]) for line in found["train, aaa"]] == [("open", "a dog"), ("who", "red")]
    assert [(line.kind, line.answers, line.places) for line in found["test, fake-test"]] == [
        ("open", [("a cat", 1.0)], []),
        ("who", [("blue", 1.0)], [0.0, 1.0]),
    ]
