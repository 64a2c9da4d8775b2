"""From clips and questions to tensors: prompts, packed passes, labels. Pure Python and CPU tensors, no model weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluenet.model.answer_rows import AnswerLayout, AnswerRows, TokenIds
from cluenet.model.grid import Grid
from cluenet.model.packing import Movable, Packed, Segment, pack
from cluenet.model.shared_prompt import PrefixBatch, prefix_batch
from cluenet.model.times import block_spans, clip_fractions
from cluenet.model.vision import EncodedClip
from cluenet.model.vlm import VisionLanguageModel
from cluenet.model.vocabulary import ClueVocabulary, box_weights
from cluenet.records import Example, Frames

if TYPE_CHECKING:
    from cluenet.model.recorded import Recorded


@dataclass
class Labels(Movable):
    """What is taught. Missing labels are masked: `labelled_BQ` for clues, `chain_mask` rows for chains, and so on."""

    gold_BQ: Tensor  # index of the right option, 0 where unknown
    answered_BQ: Tensor  # bool: the answer is known
    num_options_BQ: Tensor
    labelled_BQ: Tensor  # bool: the example has clue labels (possibly none needed)
    words_BQKW: Tensor  # ground-truth clue words, `none` in unused slots
    attention_BQKN: Tensor  # where each clue is seen
    located_BQK: Tensor  # bool: the clue has boxes
    span_BQK2: Tensor  # start and end of each clue, in fractions of the clip
    timed_BQK: Tensor  # bool: the clue has times
    block_span_BN2: Tensor  # start and end of every visual token's temporal block, in fractions of the clip


@dataclass
class Batch(Movable):
    prefix: PrefixBatch
    extraction: Packed | None
    query_index_BQM: Tensor | None  # columns of the extractor's own tokens after each question, in the extraction pass
    stem_index_BQ: Tensor | None  # last token of the question, in the extraction pass
    answer: AnswerRows
    labels: Labels
    valid_BQ: Tensor  # False where a clip has fewer questions than the widest one
    grids: list[Grid]
    clips: list[list[Example]]
    recorded: Recorded | None = None  # clues with recorded utilities, where the gate is taught on those

    @property
    def examples(self) -> list[Example]:
        return [example for clip in self.clips for example in clip]


class Collator:
    """Builds batches for one backbone and one set of components."""

    def __init__(
        self, vlm: VisionLanguageModel, *, slots: int, words: int, extracts: bool, sees_video: bool, letters: bool,
        queries: int = 0, generates: bool = False,
    ):  # fmt: skip
        """`queries`: tokens that the extractor has after each question, in the extraction pass. `generates`: the chain
        stands before the answer."""
        self.vlm, self.slots, self.words, self.queries = vlm, slots, words, queries
        self.extracts = extracts
        self.vocabulary = ClueVocabulary(vlm, words)
        self.layout = AnswerLayout(
            vlm, slots=slots, words=words, none=self.vocabulary.none, sees_video=sees_video, letters=letters,
            generates=generates,
        )  # fmt: skip

    def __call__(
        self,
        clips: Sequence[tuple[Frames | EncodedClip, Sequence[Example]]],
        *,
        seed: int,
        shuffle_options: bool,
        chain: bool = False,
    ) -> Batch:
        """`shuffle_options`: a new option order per question, from `seed`. `chain`: add rows that teach the chain."""
        grids = [self.vlm.grid_of(clip) for clip, _ in clips]
        examples = [list(questions) for _, questions in clips]
        if shuffle_options:
            rng = random.Random(seed)
            examples = [[_shuffled(example, rng) for example in row] for row in examples]
        return self.questions(self.prefix([clip for clip, _ in clips], grids), grids, examples, chain=chain)

    def questions(
        self, prefix: PrefixBatch, grids: list[Grid], examples: list[list[Example]], *, chain: bool = False
    ) -> Batch:
        """The batch of these questions about clips whose shared prompts are there already."""
        starts, width = prefix.text_starts, max(map(len, examples))
        batch = Batch(
            prefix=prefix, extraction=None, query_index_BQM=None, stem_index_BQ=None,
            answer=self.layout.rows(examples, starts, width, chain=chain), labels=self._labels(examples, grids, width),
            valid_BQ=torch.tensor([[q < len(row) for q in range(width)] for row in examples]), grids=grids, clips=examples,
        )  # fmt: skip
        return self._with_extraction(batch, starts, width) if self.extracts else batch

    def with_chains(self, batch: Batch, chains_BQ: Sequence[Sequence[TokenIds]]) -> Batch:
        """The batch with these chains before its answers, in place of whatever chain stood there."""
        rows = self.layout.rows(batch.clips, batch.prefix.text_starts, batch.valid_BQ.shape[1], written=chains_BQ)
        return replace(batch, answer=rows.to(batch.valid_BQ.device))

    # ------------------------------------------------------------------------------------- prefix
    def prefix(self, clips: Sequence[Frames | EncodedClip], grids: Sequence[Grid]) -> PrefixBatch:
        """The shared prompts of these clips."""
        return prefix_batch(self.vlm, clips, grids)

    # --------------------------------------------------------------------------------- extraction
    def _with_extraction(self, batch: Batch, starts: list[int], width: int) -> Batch:
        own = [self.vocabulary.none] * self.queries
        rows = [[Segment(self.vlm.ids(example.question) + own) for example in row] for row in batch.clips]
        packed = pack(rows, offsets=starts, pad=self.vlm.pad)
        query = torch.zeros(len(rows), width, self.queries, dtype=torch.long)
        stem = torch.zeros(len(rows), width, dtype=torch.long)
        for b, row in enumerate(rows):
            for q, segment in enumerate(row):
                first = packed.starts[b][q] + segment.length - self.queries
                query[b, q], stem[b, q] = torch.arange(first, first + self.queries), first - 1
        return replace(batch, extraction=packed, query_index_BQM=query, stem_index_BQ=stem)

    # ------------------------------------------------------------------------------------- labels
    def _labels(self, clips: list[list[Example]], grids: list[Grid], width: int) -> Labels:
        b, n = len(clips), max(grid.tokens for grid in grids)
        shape = (b, width)
        labels = Labels(
            gold_BQ=torch.zeros(shape, dtype=torch.long), answered_BQ=torch.zeros(shape, dtype=torch.bool),
            num_options_BQ=torch.zeros(shape, dtype=torch.long), labelled_BQ=torch.zeros(shape, dtype=torch.bool),
            words_BQKW=torch.full((*shape, self.slots, self.words), self.vocabulary.none),
            attention_BQKN=torch.zeros(*shape, self.slots, n), located_BQK=torch.zeros(*shape, self.slots, dtype=torch.bool),
            span_BQK2=torch.zeros(*shape, self.slots, 2), timed_BQK=torch.zeros(*shape, self.slots, dtype=torch.bool),
            block_span_BN2=torch.zeros(b, n, 2),
        )  # fmt: skip
        for i, (row, grid) in enumerate(zip(clips, grids)):
            labels.block_span_BN2[i, : grid.tokens] = block_spans(grid)
            for q, example in enumerate(row):
                labels.num_options_BQ[i, q] = len(example.options)
                labels.answered_BQ[i, q] = example.answer is not None
                labels.gold_BQ[i, q] = example.answer if isinstance(example.answer, int) else 0
                labels.labelled_BQ[i, q] = example.clues is not None
                for k, labelled in enumerate((example.clues or ())[: self.slots]):
                    clue = labelled.shifted(-example.video.start_seconds)  # the grid has the clip's clock
                    labels.words_BQKW[i, q, k] = torch.tensor(self.vocabulary.encode(clue, grid))
                    labels.attention_BQKN[i, q, k, : grid.tokens] = box_weights(clue.boxes, grid)
                    labels.located_BQK[i, q, k] = bool(labels.attention_BQKN[i, q, k].sum() > 0)
                    if (span := clip_fractions(clue, grid)) is not None:
                        labels.span_BQK2[i, q, k], labels.timed_BQK[i, q, k] = torch.tensor(span), True
        return labels


def _shuffled(example: Example, rng: random.Random) -> Example:
    order = list(range(len(example.options)))
    rng.shuffle(order)
    return example.with_options_in(order)
