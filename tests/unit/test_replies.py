"""Which option a written reply names: many forms of replies, and those on which known scripts score wrongly."""

from __future__ import annotations

import pytest

from cluenet.evaluate.replies import named_option

PETS = ("the dog", "the cat", "a red ball", "a ball")


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ("(B)", 1), ("(b)", 1), ("[C]", 2), ("( D )", 3), ("The answer is (B) because of (A)", 1), ("(B) the dog", 1),
        ("Best option:(C) a red ball", 2), ("**(D)**", 3),
        ("B", 1), ("b", 1), ("a", 0), (" B. ", 1), ("B)", 1), ("B:", 1), ("C. a red ball", 2), ("B: the dog", 1), ("**B**", 1),
        ("B\n\nThe cat is black.", 1), ("**C.** a red ball", 2), ("`D`", 3),
        ("Option B", 1), ("option b is right", 1), ("I take choice C.", 2), ("The answer is D", 3), ("Answer: B", 1),
        ("The correct answer is: **C**", 2), ("The answer is A because it barks", 0), ("answer is option B", 1),
        ("the dog", 0), ("The Dog.", 0), ("  THE   CAT ", 1), ("It is the cat, of course.", 1), ("a ball", 3),
        ("I see a red ball there", 2), ("The answer is a ball", 3),
    ],
)  # fmt: skip
def test_letters_and_words(reply: str, place: int) -> None:
    assert named_option(reply, PETS) == place


@pytest.mark.parametrize(
    "reply",
    [
        "", "   ", "\n", "(", ")", ".", "(E)", "E", "option F", "none of them", "the dog or the cat", "not the dog but the cat",
        "dogs", "The person(s) left", "A man walks", "I think so", "A.M.", "bad", "answer",
    ],
)  # fmt: skip
def test_what_names_none_is_never_guessed(reply: str) -> None:
    assert named_option(reply, PETS) is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes", "yes"), ("no.", "no"), ("Yes, there is no doubt", "yes"), ("No, not yet ... yes", "no"), ("(B)", "B"),
        ("Nothing there", None), ("I know", None), ("yesterday", None), ("", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [("yes", "no"), ("No.", "Yes.")])
def test_yes_and_no_are_told_by_the_first_whole_word(options: tuple[str, str], reply: str, said: str | None) -> None:
    place = named_option(reply, options)
    assert (None if place is None else options[place].lower().strip(".")) == (
        options[1].lower().strip(".") if said == "B" else said
    )


def test_an_option_inside_another_counts_only_where_it_stands_alone() -> None:
    options = ("red", "red cube", "13", "3")
    assert named_option("the red cube moved", options) == 1
    assert named_option("the red one", options) == 0
    assert named_option("13 times", options) == 2
    assert named_option("it is 3", options) == 3
    assert named_option("red cube or 3", options) is None


def test_equal_texts_cannot_be_told_apart_by_words() -> None:
    assert named_option("dog", ("dog", "dog", "cat")) is None
    assert named_option("(A)", ("dog", "dog", "cat")) == 0


def test_the_letters_are_those_of_the_question() -> None:
    assert named_option("(C)", ("x ray", "y ray")) is None
    assert named_option("(Z)", tuple(f"option number {n}" for n in range(30))) == 25
