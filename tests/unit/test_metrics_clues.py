"""Clue agreement by hand and against brute force on random clues."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from cluenet.metrics.clues import (
    ROLES,
    Counts,
    Stated,
    count_all,
    exact_counts,
    role_counts,
    scores,
    temporal_iou,
    timed_counts,
)


def _clue(words: str, start: float | None = None, end: float | None = None) -> Stated:
    return Stated(tuple(words.split()), None if start is None or end is None else (start, end))


HIT = _clue("<t3> red hits blue", 1.0, 2.0)


def test_exact_needs_every_word() -> None:
    late = _clue("<t4> red hits blue")
    assert exact_counts([HIT, late], [HIT]) == Counts(1, 2, 1)
    assert exact_counts([HIT, HIT], [HIT]) == Counts(1, 2, 1)  # a true clue is hit once
    assert exact_counts([], [HIT]) == Counts(0, 0, 1)
    assert exact_counts([HIT], []) == Counts(0, 1, 0)


def test_roles_are_counted_on_their_own_and_silence_is_not_counted() -> None:
    moves = _clue("<t3> green moves _")
    found = count_all([moves, HIT], [HIT, _clue("<t5> green hits _")])
    assert {role: found[role] for role in ROLES} == {
        "when": Counts(1, 2, 2), "who": Counts(2, 2, 2), "what": Counts(1, 2, 2), "whom": Counts(1, 1, 1),
    }  # fmt: skip


def test_roles_beyond_a_clues_words_are_empty() -> None:
    assert role_counts([Stated(("<t0>", "red"), None)], [HIT], ROLES.index("whom")) == Counts(0, 0, 1)


def test_timed_needs_the_words_but_not_when_and_enough_overlap() -> None:
    def against(start: float, end: float, words: str = "<t0> red hits blue") -> int:
        return timed_counts([_clue(words, start, end)], [HIT]).hits

    assert against(1.0, 2.0) == 1
    assert against(1.7, 2.0) == 1  # 0.3 of the union
    assert against(1.71, 2.0) == 0
    assert against(1.0, 2.0, "<t3> red hits green") == 0
    assert timed_counts([_clue("<t0> red hits blue")], [HIT]).hits == 0  # says no time
    assert timed_counts([_clue("<t0> red hits blue")], [_clue("<t9> red hits blue")]).hits == 1  # label says no time


def test_timed_finds_the_largest_matching() -> None:
    wide, early, late = (_clue("_ red hits blue", *span) for span in ((0, 4), (0, 2), (2, 4)))
    # `early` fits both true ones and `wide` only one of them: a greedy choice could lose a hit
    assert timed_counts([wide, early], [early, _clue("_ red hits blue", 0, 3)]).hits == 2
    assert timed_counts([wide], [early, late]).hits == 1


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        ((0, 2), (1, 3), 1 / 3), ((0, 1), (2, 3), 0.0), ((0, 1), (1, 2), 0.0), ((0, 4), (1, 2), 0.25),
        ((1, 1), (1, 1), 1.0), ((1, 1), (2, 2), 0.0), ((1, 1), (0, 2), 0.0), ((0.5, 2), (0.5, 2), 1.0),
    ],
)  # fmt: skip
def test_temporal_iou(a: tuple[float, float], b: tuple[float, float], value: float) -> None:
    assert temporal_iou(a, b) == pytest.approx(value)
    assert temporal_iou(b, a) == pytest.approx(value)


def _random_clues(rng: random.Random) -> list[Stated]:
    clues = []
    for _ in range(rng.randrange(4)):
        start = rng.randrange(4)
        words = (f"<t{start}>", rng.choice("ab"), rng.choice("xy"), rng.choice(["c", "_"]))
        clues.append(Stated(words, (start, start + rng.choice([1, 2]))))
    return clues


def test_against_brute_force_on_random_clues() -> None:
    rng = random.Random(0)
    for _ in range(400):
        stated, true = _random_clues(rng), _random_clues(rng)
        found = count_all(stated, true)
        assert found["exact"].hits == _best(stated, true, lambda a, b: a.words == b.words)
        assert found["timed"].hits == _best(
            stated, true, lambda a, b: a.words[1:] == b.words[1:] and _brute_iou(a.span, b.span) >= 0.3
        )
        for column, role in enumerate(ROLES):
            said, wanted = (
                [clue.words[column] for clue in clues if clue.words[column] != "_"] for clues in (stated, true)
            )
            hits = sum(min(said.count(word), wanted.count(word)) for word in set(said))
            assert found[role] == Counts(hits, len(said), len(wanted))


def _best(stated: list[Stated], true: list[Stated], fits) -> int:
    """Most pairs over every one-to-one assignment."""
    short, long = sorted((stated, true), key=len)
    swap = short is not stated
    pick = (lambda a, b: fits(b, a)) if swap else fits
    return max((sum(pick(a, b) for a, b in zip(short, order)) for order in permutations(long, len(short))), default=0)


def _brute_iou(a, b) -> float:
    ticks = [i / 10 for i in range(80)]
    inside_a, inside_b = ({t for t in ticks if low <= t < high} for low, high in (a, b))
    return len(inside_a & inside_b) / len(inside_a | inside_b)


def test_scores_sum_before_they_divide() -> None:
    good = count_all([HIT], [HIT])
    bad = count_all([_clue("<t0> green moves _", 5, 6)] * 3, [HIT])
    found = scores([good, bad], ["a", "b"], resamples=200)
    exact = found["exact"]
    assert (exact["hits"], exact["stated"], exact["true"]) == (1, 4, 2)
    assert exact["precision"]["value"] == 0.25
    assert exact["recall"]["value"] == 0.5
    assert exact["f1"]["value"] == pytest.approx(2 * 0.25 * 0.5 / 0.75)
    assert exact["recall"]["low"] == 0
    assert exact["recall"]["high"] == 1
    assert list(found) == ["exact", "timed", *ROLES]


def test_scores_without_any_clue_are_undefined_not_zero() -> None:
    found = scores([count_all([], [])], ["a"], resamples=100)
    assert found["exact"]["precision"]["value"] is None
    assert found["exact"]["f1"]["value"] is None
