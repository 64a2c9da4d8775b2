"""What an intervention puts in the place of a question's clues: another video's, renamed ones, one too many. No tensors.

Every choice is a pure function of the seed, the ids of the questions and what the model stated: nothing is drawn in passing.
"""

from __future__ import annotations

import itertools
import math
import random
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluenet.records import Example, content_hash

Words = tuple[int, ...]
Clues = Mapping[int, Words]
"""Word ids by clue slot."""

MOST_SUBSETS = 6
"""Random subsets of one size; all of them where there are no more, so that up to four clues the mean is exact."""


@dataclass(frozen=True)
class Asked:
    """A question with options as the model met it: the clues it stated, those that the filter showed, its answer."""

    example: Example
    stated: Clues
    shown: Clues
    prediction: int

    @property
    def video(self) -> str:
        return self.example.video.path

    @property
    def answer(self) -> str:
        """What the model answered, as words."""
        return self.example.options[self.prediction]


# ---------------------------------------------------------------------------------------------- clues left out


def subsets(slots: Sequence[int], size: int, *, seed: int, key: str) -> list[frozenset[int]]:
    """Random ones of `size` slots, all different; every one where there are at most MOST_SUBSETS."""
    if math.comb(len(slots), size) <= MOST_SUBSETS:
        return [frozenset(chosen) for chosen in itertools.combinations(slots, size)]
    rng, found = random.Random(f"{seed}/{key}/{size}"), dict[frozenset[int], None]()
    while len(found) < MOST_SUBSETS:
        found[frozenset(rng.sample(list(slots), size))] = None
    return list(found)


# --------------------------------------------------------------------------------------- clues of another video


@dataclass(frozen=True)
class Swap:
    """`target`: the option of this question that the donor's clues had the model answer, where that is another one."""

    donor: Asked
    target: int | None


def swaps(asked: Sequence[Asked], *, seed: int) -> list[Swap | None]:
    """For every question, one of another video whose shown clues differ; None where there is none.

    A donor is the best of: one that asks the same and was answered with another of this question's options (so that its clues
    support that option); one of the same type; any. Within each kind it is the next in a circle ordered by a hash of the ids.
    """
    return [_swap(one, others) for one, others in _in_a_circle(asked, seed)]


def _swap(one: Asked, others: Sequence[Asked]) -> Swap | None:
    fitting = [other for other in others if other.shown and _different(one, other)]
    for other in fitting:
        if other.example.question == one.example.question and (target := _target(one, other)) is not None:
            return Swap(other, target)
    same_type = (other for other in fitting if other.example.type == one.example.type)
    donor = next(same_type, fitting[0] if fitting else None)
    return None if donor is None else Swap(donor, None)


def _different(one: Asked, other: Asked) -> bool:
    return sorted(one.shown.values()) != sorted(other.shown.values())


def _target(one: Asked, other: Asked) -> int | None:
    options = one.example.options
    place = options.index(other.answer) if other.answer in options else one.prediction
    return place if place != one.prediction else None


def _in_a_circle(asked: Sequence[Asked], seed: int) -> Iterator[tuple[Asked, list[Asked]]]:
    """Every question with those about other videos, the next one in the circle first."""
    order = sorted(range(len(asked)), key=lambda place: content_hash(seed, asked[place].example.id))
    place_of = {number: place for place, number in enumerate(order)}
    for number, one in enumerate(asked):
        start = place_of[number]
        circle = [asked[other] for other in (*order[start + 1 :], *order[:start])]
        yield one, [other for other in circle if other.video != one.video]


# ------------------------------------------------------------------------------------------------ renamed clues


@dataclass(frozen=True)
class Exchange:
    """Clues in which the words of two options have changed places, so that they support `target` as they did the answer."""

    clues: Clues
    names: tuple[tuple[str, str], ...]  # (word of the answer, word of the target)
    target: int


def exchange(one: Asked, word_id: Callable[[str], int | None], *, seed: int) -> Exchange | None:
    """Rename what the answer names to what another option names, and the other way round, in the shown clues.

    Possible where the two options have as many words as each other, none of the words that differ is in the question, and the
    shown clues have all of the answer's. Then the renaming leaves the question as it is, and whatever made the clues support
    the answer makes the renamed ones support the target. None where no option allows it; of several, chosen by a hash.
    word_id: of a word as clues have it, None for one that the model cannot say.
    """
    said = {word for clue in one.shown.values() for word in clue}
    asked_for = {word_id(word) for word in plain_words(one.example.question)}
    places = [place for place in range(len(one.example.options)) if place != one.prediction]
    for target in sorted(places, key=lambda place: content_hash(seed, one.example.id, place)):
        names = _names(one.answer, one.example.options[target])
        ids = [(word_id(a), word_id(b)) for a, b in names]
        if ids and _clean(ids) and not asked_for & {*itertools.chain(*ids)} and {a for a, _ in ids} <= said:
            mapping = dict(ids) | {b: a for a, b in ids}
            renamed = {slot: tuple(mapping.get(word, word) for word in clue) for slot, clue in one.shown.items()}
            return Exchange(renamed, tuple(names), target)
    return None


def _names(answer: str, target: str) -> list[tuple[str, str]]:
    """The words in which two options differ, in pairs; none where they are not of the same length."""
    a, b = plain_words(answer), plain_words(target)
    return [pair for pair in dict.fromkeys(zip(a, b)) if pair[0] != pair[1]] if len(a) == len(b) else []


def _clean(ids: Sequence[tuple[int | None, int | None]]) -> bool:
    """Every word can be said and has one counterpart, and none stands on both sides: changing places is its own inverse."""
    every = [word for pair in ids for word in pair]
    return None not in every and len(set(every)) == len(every)


def plain_words(text: str) -> list[str]:
    return [word for word in (part.strip(string.punctuation) for part in text.split()) if word]


# ------------------------------------------------------------------------------------------------- one too many


@dataclass(frozen=True)
class Noise:
    """A clue that was stated about another video, and the slot it is put into; `replaces`: a shown clue stood there."""

    source: Asked
    words: Words
    slot: int
    replaces: bool


def noises(asked: Sequence[Asked], slots: int, *, seed: int) -> list[Noise | None]:
    """For every question a clue of another video that it did not state itself; None where there is none."""
    return [_noise(one, others, slots, seed) for one, others in _in_a_circle(asked, seed)]


def _noise(one: Asked, others: Sequence[Asked], slots: int, seed: int) -> Noise | None:
    own = set(one.stated.values())
    for other in others:
        foreign = [slot for slot in other.stated if other.stated[slot] not in own]
        if foreign:
            chosen = min(foreign, key=lambda slot: content_hash(seed, one.example.id, other.example.id, slot))
            slot = _free_slot(one, slots, seed)
            return Noise(other, other.stated[chosen], slot, slot in one.shown)
    return None


def _free_slot(one: Asked, slots: int, seed: int) -> int:
    """The first that says nothing, else the first that the filter dropped, else any, by a hash."""
    silent = [slot for slot in range(slots) if slot not in one.stated]
    dropped = [slot for slot in range(slots) if slot not in one.shown]
    if silent or dropped:
        return (silent or dropped)[0]
    return min(range(slots), key=lambda slot: content_hash(seed, one.example.id, "slot", slot))
