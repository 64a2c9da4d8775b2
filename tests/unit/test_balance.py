"""The balance of right answers, of prepared sets and of evaluated ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cluenet.prepared import PreparedSet
from cluenet.report.balance import balance, balances
from cluenet.report.sources import Account, Evaluation, RunData, _prepared_folder, accounts
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
    for name in ("aaa", "bbb"):
        prepared_set(store / "prepared" / name, clips=1, questions=(4,), make=asked)
    shutil.rmtree(store / "prepared" / "bbb" / "questions")
    samples = [
        {"type": "who", "options": ["red", "blue"], "answer": 1},
        {"type": "open", "options": [], "answer": "a cat"},
    ]
    evaluation = Evaluation("fake-test", {}, samples, {"prepared": str(store / "prepared" / "gone")})
    addresses = {"train": ["aaa", "bbb"], "validation": ["gone"], "test": ["gone"]}
    run = RunData(tmp_path, {"store": str(store)}, "", {"addresses": addresses}, [], [evaluation], {})
    learned, damaged, tested = balances(run.evaluations, accounts(run))
    assert [one.name for one in (learned, damaged, tested)] == ["train, aaa", "train, bbb", "test, fake-test"]
    assert [(line.kind, line.answers[0][0]) for line in learned.lines] == [("open", "a dog"), ("who", "red")]
    assert (damaged.lines, "bbb" in damaged.problem) == ([], True)
    assert [(line.kind, line.answers, line.places) for line in tested.lines] == [
        ("open", [("a cat", 1.0)], []),
        ("who", [("blue", 1.0)], [0.0, 1.0]),
    ]


def test_two_sets_of_one_name_are_both_there(tmp_path: Path) -> None:
    folders = [prepared_set(tmp_path / name, clips=1, questions=(4,), make=asked) for name in "ab"]
    two = [Account("train", "clueworld train", folder, {}) for folder in folders]
    assert [one.name for one in balances([], two)] == ["train, clueworld train"] * 2


def test_a_run_whose_store_is_a_bucket_is_looked_for_in_its_mirror(tmp_path: Path) -> None:
    recipe = {"store": "s3://bucket/x", "mirror": str(tmp_path)}
    assert (
        _prepared_folder(RunData(tmp_path, recipe, "", {}, [], [], {}))
        == tmp_path / "s3%3A%2F%2Fbucket%2Fx" / "prepared"
    )
