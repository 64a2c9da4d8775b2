"""The answer pass as tokens. One question of a row is

    [head] question, clue slots, options, [`Reasoning:` chain end,] tail     and side by side after it: words that are scored

`head` and `tail` being the chat template's parts around a question; the video, where it is seen, stands before. A chain that
the answer rests on (`generate_chain`) stands before the tail, so that whatever answers sees it. One that is only a training
target is a branch after the tail, which no answer sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from cluenet.errors import DataError
from cluenet.model.packing import Movable, Packed, Segment, branch_start, pack
from cluenet.model.prompts import letter
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import Example

TokenIds: TypeAlias = list[int]

OPTIONS_HEADING, CHAIN_HEADING = "\nOptions:", "\nReasoning:"


@dataclass
class AnswerRows(Movable):
    """Tokens, where clue words go, and which states are scored. A state in a column predicts the token after it."""

    packed: Packed
    clue_index_BQKW: Tensor
    chain_index_BQ: Tensor  # column before the first token of a chain that stands before the answer, else 0
    answer_index_BQ: Tensor  # column before the first token of an answer
    option_rows: Tensor  # [M, 5] (b, q, option, column of the predicting state, token) for answers scored as words
    chain_rows: Tensor  # [M, 4] (b, q, column of the predicting state, token) of the labelled chain and its end
    written: Sequence[Sequence[TokenIds]] | None = None  # [B][Q] the model's own chains, before its answers


@dataclass(frozen=True)
class _Question:
    """One question's tokens; columns count from its first."""

    segment: Segment
    clue: int  # where its clue slots begin
    chain: int  # where the chain's tokens begin, in `common` or in the last branch
    taught: TokenIds  # tokens of the labelled chain with its end, where it is taught
    answers: int  # how many branches are answers


class AnswerLayout:
    """Builds `AnswerRows` for one backbone and one reasoner."""

    def __init__(
        self, vlm: VisionLanguageModel, *, slots: int, words: int, none: int, sees_video: bool, letters: bool, generates: bool
    ):  # fmt: skip
        """`none`: the word of an unused slot. `generates`: the chain stands before the answer."""
        self.vlm, self.slots, self.words, self.none = vlm, slots, words, none
        self.sees_video, self.letters, self.generates = sees_video, letters, generates
        head, _, tail = vlm.chat_parts()
        self.head_ids, self.tail_ids = [] if sees_video else vlm.ids(head), vlm.ids(tail)
        self.chain_ids = vlm.ids(CHAIN_HEADING)
        self.end_ids = [vlm.tokenizer.eos_token_id]
        self.most_options = len(vlm.letter_ids())

    def rows(
        self, clips: Sequence[Sequence[Example]], starts: Sequence[int], width: int, *, chain: bool = False,
        written: Sequence[Sequence[TokenIds]] | None = None,
    ) -> AnswerRows:  # fmt: skip
        """starts: [B] first text position after each video. width: Q. chain: teach the labelled chains. written: [B][Q]
        token ids of the chains that the model wrote, with `generates`; without them its chains are the labelled ones, or
        with `chain` False none.

        Raises DataError for a question with more options than there are letters.
        """
        questions = [
            [self._question(example, chain, written and written[b][q]) for q, example in enumerate(row)]
            for b, row in enumerate(clips)
        ]
        offsets = starts if self.sees_video else [0] * len(clips)
        packed = pack([[one.segment for one in row] for row in questions], offsets=offsets, pad=self.vlm.pad)
        clue = torch.zeros(len(clips), width, self.slots, self.words, dtype=torch.long)
        before_chain, answer = (torch.zeros(len(clips), width, dtype=torch.long) for _ in range(2))
        option_rows: list[tuple[int, ...]] = []
        chain_rows: list[tuple[int, ...]] = []
        for b, row in enumerate(questions):
            for q, one in enumerate(row):
                start = packed.starts[b][q]
                slots = torch.arange(self.slots * self.words).view(self.slots, self.words)
                clue[b, q] = start + one.clue + slots
                answer[b, q] = last = start + len(one.segment.common) - 1
                before_chain[b, q] = start + one.chain - 1 if self.generates else 0
                for index, tokens in enumerate(one.segment.branches[: one.answers]):
                    first = start + branch_start(one.segment, index)
                    option_rows += [(b, q, index, last if i == 0 else first + i - 1, t) for i, t in enumerate(tokens)]
                chain_rows += [(b, q, start + one.chain + i - 1, token) for i, token in enumerate(one.taught)]
        return AnswerRows(packed, clue, before_chain, answer, _rows(option_rows, 5), _rows(chain_rows, 4), written)

    def _question(self, example: Example, chain: bool, written: TokenIds | None) -> _Question:
        stem, answers = self.vlm.ids(example.question), self._answers(example)
        before = self.head_ids + stem + [self.none] * (self.slots * self.words) + self._options(example)
        clue = len(self.head_ids) + len(stem)
        label = self.vlm.ids(f" {example.chain}") if chain and example.chain else None
        taught = [] if label is None else label + self.end_ids
        if self.generates:
            before = before + self.chain_ids
            mine = (label or []) if written is None else written
            common = before + mine + self.end_ids + self.tail_ids
            return _Question(Segment(common, tuple(answers)), clue, len(before), taught, len(answers))
        branches = answers if label is None else [*answers, self.chain_ids + taught]
        segment = Segment(before + self.tail_ids, tuple(branches))
        place = branch_start(segment, len(answers)) + len(self.chain_ids)
        return _Question(segment, clue, place, taught, len(answers))

    def _options(self, example: Example) -> TokenIds:
        if not (self.letters and example.options):
            return []
        if len(example.options) > self.most_options:
            raise DataError(
                f"question {example.id}: {len(example.options)} options, but the backbone's tokenizer has letters for "
                f"{self.most_options}. Set model.reasoner.scoring=likelihood, which needs none."
            )
        lines = "".join(f"\n{letter(index)} {text}" for index, text in enumerate(example.options))
        return self.vlm.ids(OPTIONS_HEADING) + self.vlm.ids(lines)

    def _answers(self, example: Example) -> list[TokenIds]:
        """Token texts that are scored as words: every option with likelihood scoring, the reference of an open question."""
        if example.options:
            return [] if self.letters else [self.vlm.ids(f" {option}") for option in example.options]
        return [] if example.answer_text is None else [self.vlm.ids(f" {example.answer_text}") + self.end_ids]


def _rows(values: list[tuple[int, ...]], width: int) -> Tensor:
    return torch.tensor(values, dtype=torch.long) if values else torch.zeros(0, width, dtype=torch.long)
