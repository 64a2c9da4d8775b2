"""Texts that the model writes, token by token: one pass per token for all that are being written, whenever they began.

A row of the running batch holds one clip's prefix and the prompts of its questions; every token takes one column per question,
which its own question alone sees. Rows never move relative to their columns: who sees what is said by a mask, so that new rows
join and finished ones leave between two tokens. While nobody comes or goes, tensors stay where they are and keep their shapes,
so a GPU replays the passes that it has recorded (`step_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model import kv_cache
from cluenet.model.packing import Packed, pick
from cluenet.model.padding import stacked
from cluenet.model.prefix import Prefix, with_prefix
from cluenet.model.step_graph import StepGraph
from cluenet.model.vlm import VisionLanguageModel

OnToken = Callable[[list[int]], None]
MOST_ROOM = 64
"""Tokens of each text that there is room for at a time. Columns that are not taken are computed with too."""


@dataclass
class Text:
    """What one question's text is so far. `name`: the caller's own."""

    name: Any
    most: int  # tokens after which it is cut
    on_token: OnToken | None = None  # called with all tokens after each of them
    tokens: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens that it may still get."""
        return self.most - len(self.tokens)

    def add(self, token: int, end: int | None) -> bool:
        """Whether it goes on."""
        if token == end:
            return False
        self.tokens.append(token)
        if self.on_token is not None:
            self.on_token(self.tokens)
        return self.left > 0


@dataclass
class _Rows:
    """R rows of the running batch with Q places for texts each and C columns, some of which are not taken yet."""

    cache: kv_cache.Roomy
    seen_RQC: Tensor  # bool: which columns a text's next token sees
    position_RQ: Tensor  # of the last token
    token_RQ: Tensor  # the last one, not yet in the cache
    texts: list[list[Text | None]]  # None: nothing is written in this place
    graph: StepGraph

    @property
    def full(self) -> bool:
        return self.cache.filled + self.token_RQ.shape[1] > self.cache.capacity


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
        tokens_BQ = self.vlm.head(pick(hidden_BLD, last_BQ)).argmax(-1)
        begun = [list(row) for row in texts]
        ended = self._written(begun, tokens_BQ)
        if not any(text is not None for row in begun for text in row):
            return ended
        new = self._with_room(
            [(layer.keys, layer.values) for layer in cache.layers], pick(seen_BLC, last_BQ),
            rows.positions_BL.gather(1, last_BQ), tokens_BQ, begun,
        )  # fmt: skip
        self._rows = new if self._rows is None else self._joined(self._rows, new)
        self._leave()
        return ended

    @torch.no_grad()
    def step(self) -> list[Text]:
        """One more token of every text; returns those that ended."""
        rows = self._rows
        if rows is None:
            return []
        if rows.full:
            rows = self._rows = self._with_room(*self._parts(rows))
        rows.graph(lambda: self._advance(rows))
        rows.cache.filled += rows.token_RQ.shape[1]
        ended = self._written(rows.texts, rows.token_RQ)
        self._leave()
        return ended

    def _advance(self, rows: _Rows) -> None:
        """The next token of every text, in place; nothing here waits for the device."""
        columns = rows.cache.next_L
        rows.seen_RQC.scatter_(2, columns[None, :, None].expand(len(rows.texts), -1, 1), True)
        rows.position_RQ += 1
        embeds = F.embedding(rows.token_RQ, self.vlm.embeddings_VD)
        hidden_RQD = self.vlm.cached_pass(embeds, rows.position_RQ, rows.seen_RQC, rows.cache)
        rows.token_RQ.copy_(self.vlm.head(hidden_RQD).argmax(-1))
        columns += len(columns)

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

    def _written(self, texts: list[list[Text | None]], tokens_RQ: Tensor) -> list[Text]:
        """Adds the last tokens to the texts; those that end leave their places."""
        ended = []
        for row, tokens in zip(texts, tokens_RQ.tolist()):
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
        keys_values, seen, position, token, texts = self._parts(rows)
        seen_RQC = seen[index]
        columns = seen_RQC.flatten(0, 1).any(0).nonzero()[:, 0]
        pairs = [(keys[index][:, :, columns], values[index][:, :, columns]) for keys, values in keys_values]
        return self._with_room(pairs, seen_RQC[..., columns], position[index], token[index], [texts[r] for r in kept])

    def _joined(self, old: _Rows, new: _Rows) -> _Rows:
        (pairs, *tensors, texts), (new_pairs, *new_tensors, new_texts) = self._parts(old), self._parts(new)
        joined = [
            (stacked([a, b]), stacked([c, d])) for (a, c), (b, d) in zip(pairs, new_pairs, strict=True)
        ]  # fmt: skip
        seen, position, token = (stacked([a, b]) for a, b in zip(tensors, new_tensors))
        places = token.shape[1]
        both = [[*row, *[None] * (places - len(row))] for row in (*texts, *new_texts)]
        return self._with_room(joined, seen, position, token, both)

    @staticmethod
    def _parts(rows: _Rows) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor, Tensor, list[list[Text | None]]]:
        """What rows are made of, without columns that are not taken."""
        seen_RQC = rows.seen_RQC[..., : rows.cache.filled]
        return rows.cache.taken(), seen_RQC, rows.position_RQ, rows.token_RQ, rows.texts

    @staticmethod
    def _with_room(
        keys_values: list[tuple[Tensor, Tensor]], seen_RQC: Tensor, position_RQ: Tensor, token_RQ: Tensor, texts: list[list[Text | None]]
    ) -> _Rows:  # fmt: skip
        """For the next tokens of all texts, `MOST_ROOM` of each."""
        places, longest = token_RQ.shape[1], max(text.left for row in texts for text in row if text is not None)
        room = places * min(longest, MOST_ROOM)
        cache = kv_cache.Roomy(keys_values, room=room, rows=places)
        seen = F.pad(seen_RQC, (0, room))
        return _Rows(cache, seen, position_RQ.clone(), token_RQ.clone(), texts, StepGraph(token_RQ.device))
