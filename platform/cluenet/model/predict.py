"""From tensors back to records: answers and the clues behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from cluenet.model.clues import box_of, spans_of
from cluenet.model.grid import Grid
from cluenet.model.times import block_edges
from cluenet.records import Answer, Box, PredictedClue

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.evidence import Evidence
    from cluenet.model.pipeline import ClueNet


def answers_of(
    model: ClueNet, batch: Batch, evidence: Evidence, logprobs_BQA: Tensor, texts: Mapping[tuple[int, int], str]
) -> list[Answer]:
    """One `Answer` per example, in the order of `batch.examples`. `texts`: of the questions that were answered by writing."""
    return [
        Answer(
            example_id=example.id,
            prediction=int(logprobs_BQA[b, q].argmax()) if example.options else texts[b, q],
            option_logprobs=tuple(logprobs_BQA[b, q, : len(example.options)].tolist()),
            clues=_clues(model, evidence, b, q, batch.grids[b]),
            chain=_chain(model, batch, b, q),
            reply=texts.get((b, q)),
        )
        for b, clip in enumerate(batch.clips)
        for q, example in enumerate(clip)
    ]


def _chain(model: ClueNet, batch: Batch, b: int, q: int) -> str | None:
    if batch.answer.written is None:
        return None
    return model.vlm.tokenizer.decode(batch.answer.written[b][q], skip_special_tokens=True).strip()


def _clues(model: ClueNet, evidence: Evidence, b: int, q: int, grid: Grid) -> tuple[PredictedClue, ...]:
    slots = [k for k in range(model.slots) if evidence.present_BQK[b, q, k]]
    return tuple(_clue(model, evidence, (b, q, k), grid) for k in slots)


def _clue(model: ClueNet, evidence: Evidence, place: tuple[int, int, int], grid: Grid) -> PredictedClue:
    vocabulary = model.collator.vocabulary
    words = vocabulary.decode(evidence.ids_BQKW[place].tolist())
    attention = evidence.attention_BQKN[place][: grid.tokens].cpu() if evidence.attention_BQKN is not None else None
    span, box = (None, None), None
    if attention is not None and float(attention.sum()) > 0:
        first, last = spans_of(attention, grid.blocks)
        edges = block_edges(grid)
        span = (edges[first], edges[last + 1])
        block, x1, y1, x2, y2 = box_of(attention, grid.blocks, grid.rows, grid.cols)
        box = Box(grid.seconds[block], x1, y1, x2, y2)
    return PredictedClue(
        text=vocabulary.text(words) or " ".join(words),
        words=words,
        start_seconds=span[0],
        end_seconds=span[1],
        box=box,
        gate=None if evidence.gate_BQK is None else float(evidence.gate_BQK[place]),
        kept=bool(evidence.keep_BQK[place]),
        attention_N=() if attention is None else tuple(attention.tolist()),
    )
