"""What interventions put in the place of clues: whose, where, and that nothing about it is drawn in passing."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from cluenet.model.counterfactuals import Asked, exchange, noises, plain_words, subsets, swaps
from cluenet.records import Example, VideoRef

WORDS = "_ none which one hits blue red green cyan circle square is it itself moves lights what".split()  # noqa: SIM905


def word_id(word: str) -> int | None:
    return WORDS.index(word) if word in WORDS else None


def ids(text: str) -> tuple[int, ...]:
    return tuple(WORDS.index(word) for word in text.split())


def asked(
    name: str, *clues: str, video: str | None = None, question: str = "which one hits blue ?", prediction: int = 0,
    options: tuple[str, ...] = ("red", "green", "cyan"), kind: str = "who", dropped: tuple[str, ...] = (),
) -> Asked:  # fmt: skip
    example = Example(name, "fake", VideoRef(video or f"{name}.mp4"), question, options, 0, kind)
    stated = {slot: ids(text) for slot, text in enumerate((*clues, *dropped))}
    return Asked(example, stated, {slot: stated[slot] for slot in range(len(clues))}, prediction)


# ---------------------------------------------------------------------------------------------------- subsets


@pytest.mark.parametrize("slots", [(0, 2), (0, 1, 2), (1, 2, 3, 5)])
def test_up_to_four_clues_every_subset_is_there(slots: tuple[int, ...]) -> None:
    for size in range(len(slots) + 1):
        found = subsets(slots, size, seed=0, key="q")
        assert sorted(map(sorted, found)) == sorted(map(sorted, itertools.combinations(slots, size)))


def test_of_many_clues_some_are_drawn_the_same_every_time() -> None:
    found = subsets(range(9), 4, seed=0, key="q")
    assert len(found) == len(set(found)) == 6
    assert {len(one) for one in found} == {4}
    assert subsets(range(9), 4, seed=0, key="q") == found
    assert subsets(range(9), 4, seed=1, key="q") != found
    assert subsets(range(9), 4, seed=0, key="other") != found


# ---------------------------------------------------------------------------------------------------- swapping


def test_a_donor_asks_about_another_video_and_shows_other_clues() -> None:
    one = asked("a", "_ red hits blue")
    same_video = asked("b", "_ green hits blue", video="a.mp4")
    same_words = asked("c", "_ red hits blue")
    silent = asked("d", dropped=("_ green hits blue",))
    assert swaps([one, same_video, same_words, silent], seed=0)[0] is None
    donor = asked("e", "_ green hits blue", prediction=1)
    assert swaps([one, same_video, same_words, silent, donor], seed=0)[0].donor is donor


def test_the_donor_who_asks_the_same_and_was_answered_otherwise_comes_first() -> None:
    one = asked("a", "_ red hits blue")
    same = asked("b", "_ cyan hits blue", prediction=2)
    agrees = asked("c", "_ red is circle", prediction=0)
    of_the_type = asked("d", "_ green hits red", question="which one hits red ?", prediction=1)
    other = asked("e", "_ red is circle", question="what is red ?", options=("circle", "square"), kind="shape")
    for seed in range(5):
        every = swaps([other, of_the_type, agrees, one, same], seed=seed)[3]
        assert (every.donor, every.target) == (same, 2)
        without = swaps([other, of_the_type, one], seed=seed)[2]
        assert (without.donor, without.target) == (of_the_type, None)
        last = swaps([other, one], seed=seed)[1]
        assert (last.donor, last.target) == (other, None)


def test_the_target_is_the_donors_answer_among_this_questions_options() -> None:
    one = asked("a", "_ red hits blue", options=("cyan", "red"), prediction=1)
    donor = asked("b", "_ cyan hits blue", options=("red", "green", "cyan"), prediction=2)
    assert swaps([one, donor], seed=0)[0].target == 0
    foreign = asked("b", "_ green hits blue", prediction=1)
    assert swaps([one, foreign], seed=0)[0].target is None


def test_choices_follow_the_ids_and_not_the_order_of_the_batch() -> None:
    batch = [asked(f"q{i}", f"_ {colour} hits blue") for i, colour in enumerate(("red", "green", "cyan", "circle"))]
    donors = {one.example.id: swap.donor.example.id for one, swap in zip(batch, swaps(batch, seed=0))}
    turned = [*batch[2:], *batch[:2]]
    assert {one.example.id: swap.donor.example.id for one, swap in zip(turned, swaps(turned, seed=0))} == donors
    assert any(
        {one.example.id: swap.donor.example.id for one, swap in zip(batch, swaps(batch, seed=seed))} != donors
        for seed in range(1, 9)
    )


def test_donors_are_not_always_the_same_few() -> None:
    batch = [asked(f"q{i}", f"_ {colour} hits blue") for i, colour in enumerate(("red", "green", "cyan") * 4)]
    donors = {swap.donor.example.id for swap in swaps(batch, seed=0)}
    sources = {noise.source.example.id for noise in noises(batch, 3, seed=0)}
    assert len(donors) >= 6
    assert len(sources) >= 6


# ---------------------------------------------------------------------------------------------------- renaming


def test_the_words_of_two_options_change_places() -> None:
    one = asked("a", "_ red hits blue", "_ cyan hits red", options=("red", "cyan"))
    found = exchange(one, word_id, seed=0)
    assert found.clues == {0: ids("_ cyan hits blue"), 1: ids("_ red hits cyan")}
    assert (found.names, found.target) == ((("red", "cyan"),), 1)


def test_options_of_several_words_change_places_where_they_differ() -> None:
    options = ("red hits it", "cyan hits it", "it moves itself")
    one = asked("a", "_ red hits green", question="why does green move ?", options=options)
    for seed in range(5):
        found = exchange(one, word_id, seed=seed)
        assert (found.target, found.clues) == (
            1,
            {0: ids("_ cyan hits green")},
        )  # never the third: it has "moves" for "hits"
    both = asked("a", "_ red moves _", question="what is next ?", options=("red moves", "cyan lights"))
    assert exchange(both, word_id, seed=0).clues == {0: ids("_ cyan lights _")}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"clues": ("_ green hits blue",)}, "the shown clues do not have the answer's word"),
        ({"question": "does red hit blue ?"}, "the question has it"),
        ({"question": "does cyan hit blue ?"}, "the question has the other option's word"),
        ({"options": ("red", "cyan lights")}, "the options are not of the same length"),
        ({"options": ("red", "purple")}, "the model has no word for the other option"),
    ],
)
def test_no_renaming_where_it_would_not_support_the_other_option(changes: dict, why: str) -> None:
    values = {"clues": ("_ red hits blue",), "options": ("red", "cyan"), **changes}
    assert exchange(asked("a", *values.pop("clues"), **values), word_id, seed=0) is None, why


def test_two_words_with_one_token_cannot_change_places() -> None:
    one = asked("a", "_ red hits blue", options=("red", "cyan"))
    assert exchange(one, lambda word: 7 if word in ("red", "cyan") else word_id(word), seed=0) is None
    crossed = asked("a", "_ red hits blue", question="what ?", options=("red blue", "blue red"))
    assert (
        exchange(crossed, word_id, seed=0) is None
    )  # red -> blue and blue -> red: the options are each other's mirror


def test_of_several_targets_a_hash_chooses() -> None:
    one = asked("a", "_ red hits blue")
    assert {exchange(one, word_id, seed=seed).target for seed in range(20)} == {1, 2}
    assert exchange(one, word_id, seed=3) == exchange(one, word_id, seed=3)


def test_words_are_free_of_punctuation() -> None:
    assert plain_words(" It's red , (not blue)? ") == ["It's", "red", "not", "blue"]


# ------------------------------------------------------------------------------------------------------- noise


def test_noise_is_another_videos_clue_that_the_question_has_not() -> None:
    one = asked("a", "_ red hits blue", dropped=("_ cyan is circle",))
    same_video = asked("b", "_ green hits blue", video="a.mp4")
    known = asked("c", "_ red hits blue", "_ cyan is circle")
    assert noises([one, same_video, known], 3, seed=0)[0] is None
    other = asked("d", "_ red hits blue", dropped=("_ green lights _",))
    found = noises([one, same_video, known, other], 3, seed=0)[0]
    assert (found.source, found.words) == (other, ids("_ green lights _"))


def test_noise_goes_where_it_covers_least() -> None:
    other = asked("z", "_ green lights _")

    def place(one: Asked, slots: int) -> tuple[int, bool]:
        noise = noises([one, other], slots, seed=0)[0]
        return noise.slot, noise.replaces

    assert place(asked("a", "_ red hits blue", dropped=("_ cyan is circle",)), 3) == (2, False)
    assert place(asked("a", "_ red hits blue", dropped=("_ cyan is circle",)), 2) == (1, False)
    full = asked("a", "_ red hits blue", "_ cyan is circle")
    assert place(full, 2)[1]
    others = [replace(full, example=replace(full.example, id=f"a{i}")) for i in range(20)]
    assert {place(one, 2)[0] for one in others} == {0, 1}
