"""Reasoning that the model writes before it answers (`model.reasoner.generate_chain`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.answer_rows import TokenIds
from cluenet.model.packing import pick
from cluenet.model.vlm import Prefix, with_prefix

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet

MOST_CHAIN_TOKENS = 64
"""A chain that has not ended by then is cut."""


def with_written_chains(model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor) -> Batch:
    """The batch with the model's own chains before its answers. `embeds_BLD`: the answer pass's inputs, clues in place."""
    return model.collator.with_chains(batch, _until_end(model, batch, written(model, batch, prefix, embeds_BLD)))


@torch.no_grad()
def written(model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor) -> Tensor:
    """[B, Q, T] the most probable token after each question's heading, again and again, until every chain has ended.

    One pass per token for all questions together: each adds one column to the cache, which its own question alone sees.
    """
    rows, vlm, heading_BQ = batch.answer.packed, model.vlm, batch.answer.chain_index_BQ
    cache, seen_BLC = vlm.cache(prefix), with_prefix(rows.allowed_BLL, prefix)
    hidden = pick(vlm.cached_pass(embeds_BLD, rows.positions_BL, seen_BLC, cache), heading_BQ)
    seen_BQC, position_BQ = pick(seen_BLC, heading_BQ), rows.positions_BL.gather(1, heading_BQ)
    own_BQQ = torch.eye(heading_BQ.shape[1], dtype=torch.bool, device=heading_BQ.device).expand(len(heading_BQ), -1, -1)
    ended_BQ, tokens = ~batch.valid_BQ, []
    while True:
        tokens.append(vlm.head(hidden).argmax(-1))
        ended_BQ = ended_BQ | (tokens[-1] == vlm.tokenizer.eos_token_id)
        if len(tokens) == MOST_CHAIN_TOKENS or bool(ended_BQ.all()):
            return torch.stack(tokens, dim=-1)
        seen_BQC, position_BQ = torch.cat([seen_BQC, own_BQQ], dim=-1), position_BQ + 1
        hidden = vlm.cached_pass(F.embedding(tokens[-1], vlm.embeddings_VD), position_BQ, seen_BQC, cache)


def _until_end(model: ClueNet, batch: Batch, tokens_BQT: Tensor) -> list[list[TokenIds]]:
    """Without the end and what was written after it."""
    end = model.vlm.tokenizer.eos_token_id
    return [
        [ids[: ids.index(end)] if end in ids else ids for ids in row[: len(clip)]]
        for row, clip in zip(tokens_BQT.tolist(), batch.clips)
    ]


def chain_logprob(model: ClueNet, batch: Batch, hidden_BLD: Tensor) -> Tensor:
    """[B, Q] log-probability of the labelled chain in nats, the sum over its tokens and its end; 0 where none is taught."""
    rows, (b, q) = batch.answer.chain_rows, batch.valid_BQ.shape
    logprobs = model.vlm.head(hidden_BLD[rows[:, 0], rows[:, 2]]).float().log_softmax(-1)
    values = logprobs.gather(-1, rows[:, 3:4])[:, 0]
    return torch.zeros(b * q, device=values.device).index_add(0, rows[:, 0] * q + rows[:, 1], values).view(b, q)
