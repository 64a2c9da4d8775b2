"""Greedy answers to questions without options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.vlm import Prefix

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet

MOST_NEW_TOKENS = 32


def open_answers(model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor) -> dict[tuple[int, int], str]:
    """Text for every question (b, q) that has no options; `embeds_BLD` are the answer pass's inputs, clues in place."""
    return {
        (b, q): model.vlm.tokenizer.decode(
            _greedy(model, batch, prefix, embeds_BLD, b, q), skip_special_tokens=True
        ).strip()
        for b, clip in enumerate(batch.clips)
        for q, example in enumerate(clip)
        if not example.options
    }


def _greedy(model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor, b: int, q: int) -> list[int]:
    rows, vlm = batch.answer.packed, model.vlm
    last = int(batch.answer.answer_index_BQ[b, q])
    mine = rows.allowed_BLL[b, last].nonzero()[:, 0]  # the question's own tokens up to where the answer starts
    embeds, positions = embeds_BLD[b : b + 1, mine], rows.positions_BL[b : b + 1, mine]
    seen = prefix.only(b) if prefix is not None else None
    tokens: list[int] = []
    while len(tokens) < MOST_NEW_TOKENS:
        causal = torch.ones(1, embeds.shape[1], embeds.shape[1], dtype=torch.bool, device=embeds.device).tril()
        hidden = vlm.text_pass(embeds, positions, causal, prefix=seen)
        token = int(vlm.head(hidden[:, -1]).argmax())
        if token == vlm.tokenizer.eos_token_id:
            break
        tokens.append(token)
        new = F.embedding(torch.tensor([[token]], device=embeds.device), vlm.embeddings_VD)
        embeds = torch.cat([embeds, new], dim=1)
        positions = torch.cat([positions, positions[:, -1:] + 1], dim=1)
    return tokens
