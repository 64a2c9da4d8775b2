"""Texts that the model writes, token by token: one pass per token for all that are being written, whenever they began.

A row of the running batch holds one clip's prefix and the prompts of its questions; every token adds one column per question,
which its own question alone sees. Rows never move relative to their columns: who sees what is said by a mask, so that new rows
join and finished ones leave between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from cluenet.model import kv_cache
from cluenet.model.packing import Packed, pick
from cluenet.model.padding import stacked
from cluenet.model.prefix import Prefix, with_prefix
from cluenet.model.vlm import VisionLanguageModel

OnToken = Callable[[list[int]], None]


@dataclass
class Text:
    """What one question's text is so far. `name`: the caller's own."""

    name: Any
    most: int  # tokens after which it is cut
    on_token: OnToken | None = None  # called with all tokens after each of them
    tokens: list[int] = field(default_factory=list)

    def add(self, token: int, end: int | None) -> bool:
        """Whether it goes on."""
        if token == end:
            return False
        self.tokens.append(token)
        if self.on_token is not None:
            self.on_token(self.tokens)
        return len(self.tokens) < self.most


@dataclass
class _Rows:
    """R rows of the running batch with Q places for texts each and C columns."""

    cache: DynamicCache
    seen_RQC: Tensor  # bool: which columns a text's next token sees
    position_RQ: Tensor  # of the last token
    token_RQ: Tensor  # the last one, not yet in the cache
    texts: list[list[Text | None]]  # None: nothing is written in this place


class Writer:
    """Greedy: always the most probable token."""

    def __init__(self, vlm: VisionLanguageModel):
        self.vlm, self.end = vlm, vlm.tokenizer.eos_token_id
        self._rows: _Rows | None = None

    @property
    def running(self) -> int:
        """Texts that are being written."""
        return 0 if self._rows is None else sum(text is not None for row in self._rows.texts for text in row)

    @torch.no_grad()
    def begin(
        self, rows: Packed, embeds_BLD: Tensor, prefix: Prefix | None, last_BQ: Tensor, texts: Sequence[Sequence[Text | None]]
    ) -> list[Text]:  # fmt: skip
        """New texts: `last_BQ` is the column of `rows` after which each begins. Returns those that ended at once."""
        cache, seen_BLC = self.vlm.cache(prefix), with_prefix(rows.allowed_BLL, prefix)
        hidden_BLD = self.vlm.cached_pass(embeds_BLD, rows.positions_BL, seen_BLC, cache)
        new = _Rows(
            cache, pick(seen_BLC, last_BQ), rows.positions_BL.gather(1, last_BQ),
            self.vlm.head(pick(hidden_BLD, last_BQ)).argmax(-1), [list(row) for row in texts],
        )  # fmt: skip
        ended = self._written(new)
        self._rows = new if self._rows is None else self._joined(self._rows, new)
        self._leave()
        return ended

    @torch.no_grad()
    def step(self) -> list[Text]:
        """One more token of every text; returns those that ended."""
        rows = self._rows
        if rows is None:
            return []
        clips, places = rows.token_RQ.shape
        own_RQQ = torch.eye(places, dtype=torch.bool, device=rows.token_RQ.device).expand(clips, -1, -1)
        rows.seen_RQC, rows.position_RQ = torch.cat([rows.seen_RQC, own_RQQ], dim=-1), rows.position_RQ + 1
        embeds = F.embedding(rows.token_RQ, self.vlm.embeddings_VD)
        hidden_RQD = self.vlm.cached_pass(embeds, rows.position_RQ, rows.seen_RQC, rows.cache)
        rows.token_RQ = self.vlm.head(hidden_RQD).argmax(-1)
        ended = self._written(rows)
        self._leave()
        return ended

    def to_end(self) -> list[Text]:
        """Every text that is being written, finished."""
        ended: list[Text] = []
        while self.running:
            ended += self.step()
        return ended

    def drop_all(self) -> list[Text]:
        """Stop every text; returns them as far as they are."""
        rows, self._rows = self._rows, None
        return [] if rows is None else [text for row in rows.texts for text in row if text is not None]

    def _written(self, rows: _Rows) -> list[Text]:
        """Adds the last tokens to the texts; those that end leave their places."""
        ended = []
        for row, tokens in zip(rows.texts, rows.token_RQ.tolist()):
            for place, text in enumerate(row):
                if text is not None and not text.add(tokens[place], self.end):
                    ended.append(text)
                    row[place] = None
        return ended

    def _leave(self) -> None:
        """Rows in which nothing is written any more make room, and so do columns that nobody sees."""
        rows = self._rows
        if rows is None:
            return
        busy = [r for r, row in enumerate(rows.texts) if any(text is not None for text in row)]
        if not busy:
            self._rows = None
        elif len(busy) < len(rows.texts):
            self._rows = self._only(rows, busy)

    def _only(self, rows: _Rows, kept: list[int]) -> _Rows:
        index = torch.tensor(kept, device=rows.token_RQ.device)
        seen_RQC = rows.seen_RQC[index]
        columns = seen_RQC.flatten(0, 1).any(0).nonzero()[:, 0]
        pairs = [(layer.keys[index][:, :, columns], layer.values[index][:, :, columns]) for layer in rows.cache.layers]
        return _Rows(
            self._cache(pairs), seen_RQC[..., columns], rows.position_RQ[index], rows.token_RQ[index],
            [rows.texts[r] for r in kept],
        )  # fmt: skip

    def _joined(self, old: _Rows, new: _Rows) -> _Rows:
        pairs = [
            (stacked([a.keys, b.keys]), stacked([a.values, b.values]))
            for a, b in zip(old.cache.layers, new.cache.layers, strict=True)
        ]
        seen, position, token = (
            stacked([getattr(old, name), getattr(new, name)]) for name in ("seen_RQC", "position_RQ", "token_RQ")
        )
        places = token.shape[1]
        texts = [[*row, *[None] * (places - len(row))] for row in (*old.texts, *new.texts)]
        return _Rows(self._cache(pairs), seen, position, token, texts)

    def _cache(self, keys_values: list[tuple[Tensor, Tensor]]) -> DynamicCache:
        return kv_cache.growing(self.vlm.hf.config.text_config, keys_values)
