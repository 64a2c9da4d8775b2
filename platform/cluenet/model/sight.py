"""What a clue extractor gets to see: the backbone's states of a batch of clips and questions, up to the clue layer."""

from __future__ import annotations

from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from cluenet.model.batch import Batch
from cluenet.model.packing import Packed, pick, place
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.model.vocabulary import ClueVocabulary


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
