"""What the model writes: the most probable token, again and again (greedy decoding)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.packing import pick
from cluenet.model.vlm import Prefix, with_prefix

if TYPE_CHECKING:
    from cluenet.model.answer_rows import TokenIds
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet


@dataclass(frozen=True)
class Writing:
    """Which questions are answered by writing. Open ones always are, since they have no options to score."""

    every: bool = False  # those with options too
    most_tokens: int = 32  # a text that has not ended by then is cut


def replies(
    model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor, writing: Writing
) -> Mapping[tuple[int, int], str]:
    """Text for every question (b, q) that is answered by writing; `embeds_BLD`: the answer pass's inputs, clues in place."""
    asked = [
        (b, q) for b, clip in enumerate(batch.clips) for q, example in enumerate(clip) if writing.every or not example.options
    ]  # fmt: skip
    if not asked:
        return {}
    wanted_BQ = torch.zeros_like(batch.valid_BQ)
    wanted_BQ[tuple(torch.tensor(asked).T)] = True
    tokens = written(
        model, batch, prefix, embeds_BLD, batch.answer.answer_index_BQ, wanted_BQ=wanted_BQ, most=writing.most_tokens
    )
    decode = model.vlm.tokenizer.decode
    ended = until_end(model, batch, tokens)
    return {(b, q): decode(ended[b][q], skip_special_tokens=True).strip() for b, q in asked}


@torch.no_grad()
def written(
    model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor, after_BQ: Tensor, *, wanted_BQ: Tensor, most: int
) -> Tensor:  # fmt: skip
    """[B, Q, T] the most probable token after column `after_BQ` of the answer pass, again and again, until every wanted
    question's text has ended, or has `most` tokens. `embeds_BLD`: the answer pass's inputs.

    One pass per token for all questions together: each adds one column to the cache, which its own question alone sees.
    """
    rows, vlm = batch.answer.packed, model.vlm
    cache, seen_BLC = vlm.cache(prefix), with_prefix(rows.allowed_BLL, prefix)
    hidden = pick(vlm.cached_pass(embeds_BLD, rows.positions_BL, seen_BLC, cache), after_BQ)
    seen_BQC, position_BQ = pick(seen_BLC, after_BQ), rows.positions_BL.gather(1, after_BQ)
    own_BQQ = torch.eye(after_BQ.shape[1], dtype=torch.bool, device=after_BQ.device).expand(len(after_BQ), -1, -1)
    ended_BQ, tokens = ~wanted_BQ, []
    while True:
        tokens.append(vlm.head(hidden).argmax(-1))
        ended_BQ = ended_BQ | (tokens[-1] == vlm.tokenizer.eos_token_id)
        if len(tokens) == most or bool(ended_BQ.all()):
            return torch.stack(tokens, dim=-1)
        seen_BQC, position_BQ = torch.cat([seen_BQC, own_BQQ], dim=-1), position_BQ + 1
        hidden = vlm.cached_pass(F.embedding(tokens[-1], vlm.embeddings_VD), position_BQ, seen_BQC, cache)


def until_end(model: ClueNet, batch: Batch, tokens_BQT: Tensor) -> list[list[TokenIds]]:
    """Token ids of every question, without the end and what was written after it."""
    end = model.vlm.tokenizer.eos_token_id
    return [
        [ids[: ids.index(end)] if end in ids else ids for ids in row[: len(clip)]]
        for row, clip in zip(tokens_BQT.tolist(), batch.clips)
    ]
