"""What a clue extractor gets to see: the backbone's states of a batch of clips and questions, up to the clue layer."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.attention_map import attention_map
from cluenet.model.batch import Batch
from cluenet.model.packing import Packed, pick, place
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.model.vocabulary import ClueVocabulary

TOKENS_AT_ONCE = 256
"""Visual tokens read through the LM head at a time: a large vocabulary would fill the memory."""


class Sight:
    """`query_states` for extractors that learn; `lens` and `attention` for those that read the backbone as it is."""

    def __init__(
        self, vlm: VisionLanguageModel, vocabulary: ClueVocabulary, batch: Batch, prefix: Prefix, layer: int
    ):  # fmt: skip
        assert prefix.visual_BND is not None
        self.vocabulary, self.layer, self.grids = vocabulary, layer, batch.grids
        self.visual_BND, self.visual_mask_BN = prefix.visual_BND, prefix.visual_mask_BN
        self.num_questions = batch.valid_BQ.shape[1]
        self._vlm, self._batch, self._prefix = vlm, batch, prefix
        self._queries_KD: Tensor | None = None

    # ------------------------------------------------------------------------------- learned queries
    def query_states(self, queries_KD: Tensor) -> Tensor:
        """[B, Q, K, D] states at the clue layer of these embeddings, standing after each question."""
        self._queries_KD = queries_KD
        return pick(self._hidden_BLD, self._batch.query_index_BQK)

    @property
    def stem_BQD(self) -> Tensor:
        """State at the clue layer of each question's last token."""
        return pick(self._hidden_BLD, self._batch.stem_index_BQ)

    @cached_property
    def _hidden_BLD(self) -> Tensor:
        rows, index = self._batch.extraction, self._batch.query_index_BQK
        embeds = F.embedding(rows.ids_BL, self._vlm.embeddings_VD)
        if self._queries_KD is not None:
            queries = self._queries_KD.expand(*index.shape, -1).to(embeds.dtype)
            embeds = place(embeds, index, queries, self._batch.valid_BQ)
        return self._pass(embeds, rows)

    def _pass(self, embeds_BLD: Tensor, rows: Packed) -> Tensor:
        return self._vlm.text_pass(
            embeds_BLD, rows.positions_BL, rows.allowed_BLL, prefix=self._prefix, stop_at=self.layer
        )

    # ------------------------------------------------------------------------- the backbone as it is
    def top_words(self, count: int, *, excluded: frozenset[str]) -> tuple[Tensor, Tensor]:
        """(probabilities, word ids), both [B, N, count]: the most probable content words of every visual token through
        the LM head, the highest first; probability 0 and `_` where there is none, probability 0 on padding. excluded: words that say
        nothing, lower case."""
        allowed_V = self.vocabulary.content_words(excluded).to(self.visual_BND.device)
        states = self.visual_BND.flatten(0, 1).split(TOKENS_AT_ONCE)
        tops = [self._vlm.lens(part).float().softmax(-1).mul(allowed_V).topk(count) for part in states]
        values, ids = (torch.cat(parts).view(*self.visual_mask_BN.shape, count) for parts in zip(*tops))
        return values * self.visual_mask_BN[..., None], ids.where(values > 0, self.vocabulary.absent)

    @property
    def when_BN(self) -> Tensor:
        """Word id that names the temporal block of every visual token; `none` on padding."""
        when_BN = torch.full(self.visual_mask_BN.shape, self.vocabulary.none)
        for b, grid in enumerate(self.grids):
            ids = torch.tensor(self.vocabulary.when_ids(grid))
            when_BN[b, : grid.tokens] = ids.repeat_interleave(grid.rows * grid.cols)
        return when_BN.to(self.visual_BND.device)

    def attention_of_questions(self, *, layer: int) -> Tensor:
        """[B, Q, N] how much each question's last token looks at the visual tokens in decoder layer `layer`, counted from
        1, at most the clue layer; mean over heads."""
        rows = self._batch.extraction
        return self._attention(rows.ids_BL, rows.positions_BL, rows.allowed_BLL, self._batch.stem_index_BQ, layer)

    def attention_of(self, text: str, *, layer: int) -> Tensor:
        """[B, N] the same of a text that stands in the question's place."""
        rows, ids = self._batch.extraction, self._vlm.ids(text)
        device, clips = rows.ids_BL.device, len(rows.ids_BL)
        ids_BL = torch.tensor([ids] * clips, device=device)
        positions_BL = rows.positions_BL[:, :1] + torch.arange(len(ids), device=device)
        allowed_BLL = torch.ones(clips, len(ids), len(ids), dtype=torch.bool, device=device).tril()
        last_B1 = torch.full((clips, 1), len(ids) - 1, device=device)
        return self._attention(ids_BL, positions_BL, allowed_BLL, last_B1, layer)[:, 0]

    def _attention(
        self, ids_BL: Tensor, positions_BL: Tensor, allowed_BLL: Tensor, rows_BQ: Tensor, layer: int
    ) -> Tensor:
        embeds = F.embedding(ids_BL, self._vlm.embeddings_VD)
        map_BLS = attention_map(self._vlm, embeds, positions_BL, allowed_BLL, prefix=self._prefix, layer=layer)
        columns = self._batch.prefix.visual_index_BN[:, None].expand(-1, rows_BQ.shape[1], -1)
        return pick(map_BLS, rows_BQ).gather(-1, columns) * self.visual_mask_BN[:, None]
