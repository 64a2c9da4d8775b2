"""Clues as words: a clue is `W` words, `when` first, then who / what / whom (or the first words of its text).

`when` names a temporal block of the prompt, so the model can point at the very token it has seen before that block; where
the tokenizer splits such a label (`<0.5 seconds>`), no single word can name it, and times come from attention alone.
An absent role is `_`, an unused slot is `none` in every place. Words are single tokens: the first one of longer words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from cluenet.model.vlm import Grid, VisionLanguageModel
from cluenet.records import CONCEPT_ROLES, Box, Clue

ABSENT, NONE = "_", "none"


class ClueVocabulary:
    """Translates between `records.Clue` and word ids of one backbone. `words`: W."""

    def __init__(self, vlm: VisionLanguageModel, words: int):
        self.vlm, self.words = vlm, words
        self.none, self.absent = vlm.word_id(NONE), vlm.word_id(ABSENT)
        self._content_words: dict[frozenset[str], Tensor] = {}

    def encode(self, clue: Clue, grid: Grid) -> list[int]:
        """W word ids."""
        content = self._content(clue)[: self.words - 1]
        ids = [self._when(clue, grid), *(self.vlm.word_id(word) for word in content)]
        return ids + [self.absent] * (self.words - len(ids))

    def _content(self, clue: Clue) -> list[str]:
        if clue.concepts:
            return [clue.concepts.get(role, ABSENT) for role in CONCEPT_ROLES]
        return clue.text.split()

    def _when(self, clue: Clue, grid: Grid) -> int:
        if clue.start_seconds is None or clue.end_seconds is None:
            return self.absent
        block = nearest_block((clue.start_seconds + clue.end_seconds) / 2, grid)
        return self.when_ids(grid)[block]

    def when_ids(self, grid: Grid) -> list[int]:
        """Word ids that name the temporal blocks; `_` where the tokenizer splits such a label."""
        return [self.vlm.word_id(label) if self.vlm.is_word(label) else self.absent for label in self.vlm.labels(grid)]

    def content_words(self, excluded: frozenset[str]) -> Tensor:
        """Bool [V]: tokens that are whole words of letters, more than one, not in `excluded` (lower case), not special.

        A word stands for itself: text made of it gives the same token again."""
        if excluded not in self._content_words:
            self._content_words[excluded] = self._content_mask(excluded)
        return self._content_words[excluded]

    def _content_mask(self, excluded: frozenset[str]) -> Tensor:
        tokenizer = self.vlm.tokenizer
        words = [word.strip() for word in tokenizer.batch_decode([[i] for i in range(len(tokenizer))])]
        back = tokenizer([f" {word}" for word in words], add_special_tokens=False).input_ids
        silent = {ABSENT, NONE, *excluded}
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        mask = torch.zeros(len(self.vlm.embeddings_VD), dtype=torch.bool)
        for i, (word, ids) in enumerate(zip(words, back)):
            mask[i] = (
                word.isalpha() and len(word) > 1 and word.lower() not in silent and i not in special and ids == [i]
            )
        return mask

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Words as they are displayed, `when` included."""
        return tuple(self.vlm.tokenizer.decode([i]).strip() for i in ids)

    def text(self, words: Sequence[str]) -> str:
        """A clue's words as a phrase, without `when`."""
        return " ".join(word for word in words[1:] if word not in (ABSENT, NONE))

    def recode(self, words: Sequence[str]) -> list[int]:
        """Inverse of `decode`: from displayed words alone."""
        return [self.vlm.word_id(word) for word in words]

    def present(self, ids_W: Tensor) -> Tensor:
        """[..., W] word ids -> bool [...]: at least half of the words say something."""
        return ids_W.ne(self.none).sum(-1) * 2 > self.words


def nearest_block(seconds: float, grid: Grid) -> int:
    return min(range(grid.blocks), key=lambda block: abs(grid.seconds[block] - seconds))


def box_weights(boxes: Sequence[Box], grid: Grid) -> Tensor:
    """[N] share of every visual token that the boxes cover, each at the block nearest to its time; sums to 1, or is all
    zero without boxes. This is the target that slot attention is taught (the clue loss)."""
    weights = torch.zeros(grid.blocks, grid.rows, grid.cols)
    for box in boxes:
        rows = _overlap(box.y1, box.y2, grid.rows)
        cols = _overlap(box.x1, box.x2, grid.cols)
        block = nearest_block(box.seconds, grid)
        weights[block] = torch.maximum(weights[block], torch.outer(rows, cols))
    total = weights.sum()
    return (weights / total if total > 0 else weights).flatten()


@lru_cache(maxsize=65536)
def _overlap(low: float, high: float, count: int) -> Tensor:
    """[count] fraction of each of `count` equal cells of 0..1 that lies in low..high."""
    edges = torch.arange(count + 1) / count
    return ((edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count).clamp(max=1)
