"""Clue labels that find no room in a model's K clue slots of W words: counted before training, so that they can be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

from cluenet.folders import read_manifest
from cluenet.prepared import PreparedSet
from cluenet.records import CONCEPT_ROLES, Clue
from cluenet.registry import ComponentConfig


@dataclass(frozen=True)
class Cut:
    """Counts over questions. A slot holds W words of a clue: `when`, then W - 1 of what it says."""

    questions: int = 0  # that have more than K clues
    clues: int = 0  # that stand after the K-th of their question
    shortened: int = 0  # that have a slot, and say more words than it holds

    def __add__(self, other: Cut) -> Cut:
        return Cut(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def notes(self, extractor: ComponentConfig) -> Iterator[str]:
        """What is cut, in words, and the setting that makes room."""
        slots, words = _room(extractor)
        if self.questions:
            yield (
                f"{self.questions} questions have more than {slots} clues, the later ones ({self.clues}) are not taught; "
                "model.clue_extractor.slots makes room"
            )
        if self.shortened and words is not None:
            yield (
                f"{self.shortened} clues have more than {words - 1} words, the later ones are not taught; "
                "model.clue_extractor.words makes room"
            )


NOTHING = Cut()


def cut_of(extractor: ComponentConfig, folders: Sequence[str | Path]) -> Cut:
    """Over all questions of these prepared sets. Raises StorageError and DataError where one cannot be read."""
    return sum((_cut_of_set(str(folder), *_room(extractor)) for folder in folders), NOTHING)


def _room(extractor: ComponentConfig) -> tuple[int | None, int | None]:
    """(K, W) by the extractor's settings `slots` and `words`; None for one it has not: then no such limit is known."""
    return getattr(extractor, "slots", None), getattr(extractor, "words", None)


@cache
def _cut_of_set(folder: str, slots: int | None, words: int | None) -> Cut:
    """A finished set never changes."""
    if not read_manifest(folder)["labels"].get("clues"):
        return NOTHING
    examples = PreparedSet(folder).iter_examples()
    return sum((cut_by(example.clues, slots, words) for example in examples if example.clues), NOTHING)


def cut_by(clues: Sequence[Clue], slots: int | None, words: int | None) -> Cut:
    """What of one question's clues finds no room."""
    kept = clues if slots is None else clues[:slots]
    shortened = 0 if words is None else sum(_says_more(clue, words - 1) for clue in kept)
    return Cut(int(len(kept) < len(clues)), len(clues) - len(kept), shortened)


def _says_more(clue: Clue, num_words: int) -> bool:
    """Than `num_words`: who, what, whom in this order, or the words of its text where it names no roles."""
    if clue.concepts:
        return any(role in clue.concepts for role in CONCEPT_ROLES[num_words:])
    return len(clue.text.split()) > num_words
