"""Reasoning that the model writes before it answers (`model.reasoner.generate_chain`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluenet.model.generate import written
from cluenet.model.vlm import Prefix

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet

MOST_CHAIN_TOKENS = 64
"""A chain that has not ended by then is cut."""


def with_written_chains(model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor) -> Batch:
    """The batch with the model's own chains before its answers. `embeds_BLD`: the answer pass's inputs, clues in place."""
    asked = [(b, q) for b, clip in enumerate(batch.clips) for q in range(len(clip))]
    after_BQ = batch.answer.chain_index_BQ
    chains = written(model, batch, prefix, embeds_BLD, after_BQ, asked, most=MOST_CHAIN_TOKENS)
    return model.collator.with_chains(
        batch, [[chains[b, q] for q in range(len(clip))] for b, clip in enumerate(batch.clips)]
    )


def chain_logprob(model: ClueNet, batch: Batch, hidden_BLD: Tensor) -> Tensor:
    """[B, Q] log-probability of the labelled chain in nats, the sum over its tokens and its end; 0 where none is taught."""
    rows, (b, q) = batch.answer.chain_rows, batch.valid_BQ.shape
    logprobs = model.vlm.head(hidden_BLD[rows[:, 0], rows[:, 2]]).float().log_softmax(-1)
    values = logprobs.gather(-1, rows[:, 3:4])[:, 0]
    return torch.zeros(b * q, device=values.device).index_add(0, rows[:, 0] * q + rows[:, 1], values).view(b, q)
