"""What a clue extractor gets to see: the backbone's states of a batch of clips and questions, up to the clue layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.attention_map import at_visual_tokens, attention_map
from cluenet.model.batch import Batch
from cluenet.model.packing import pick, place
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.model.vocabulary import ClueVocabulary

TOKENS_AT_ONCE = 256
"""Visual tokens read through the LM head at a time: a large vocabulary would fill the memory."""


class Sight:
    """Extractors that learn have tokens of their own after the question: `query_states`, or words that the language model
    writes, `written` and `continued`. Others read the backbone as it is: `top_words`, `attention_of_questions`."""

    def __init__(
        self, vlm: VisionLanguageModel, vocabulary: ClueVocabulary, batch: Batch, prefix: Prefix, layer: int, *,
        reads_own: bool = True, teacher_BQKW: Tensor | None = None,
    ):  # fmt: skip
        """reads_own: the reasoner will read what is stated. teacher_BQKW: in training, words that are to be taught."""
        assert prefix.visual_BND is not None
        self.vocabulary, self.layer, self.grids = vocabulary, layer, batch.grids
        self.visual_BND, self.visual_mask_BN = prefix.visual_BND, prefix.visual_mask_BN
        self.num_questions = batch.valid_BQ.shape[1]
        self.reads_own, self.teacher_BQKW = reads_own, teacher_BQKW
        self._vlm, self._batch, self._prefix = vlm, batch, prefix
        self._hidden_BLD: Tensor | None = None

    # -------------------------------------------------------------------------------- after the question
    def query_states(self, queries_KD: Tensor) -> Tensor:
        """[B, Q, K, D] states at the clue layer of these embeddings, standing after each question."""
        index = self._batch.query_index_BQM
        self._hidden_BLD = self._pass(queries_KD.expand(*index.shape, -1))
        return pick(self._hidden_BLD, index)

    def continued(self, ids_BQM: Tensor) -> Tensor:
        """[B, Q, M, D] normalised states that predict each of these words, standing after each question; with the clue
        layer at the top of the decoder, the LM head reads the language model's own prediction from them."""
        self._hidden_BLD = self._pass(F.embedding(ids_BQM, self._vlm.embeddings_VD))
        before_BQM = torch.cat([self._batch.stem_index_BQ[..., None], self._batch.query_index_BQM[..., :-1]], dim=-1)
        return self._vlm.text.norm(pick(self._hidden_BLD, before_BQM))

    @torch.no_grad()
    def written(self) -> Tensor:
        """[B, Q, M] the words that the language model itself writes after each question, greedily; M passes."""
        ids_BQM = torch.full_like(self._batch.query_index_BQM, self.vocabulary.none)
        for m in range(ids_BQM.shape[-1]):
            ids_BQM[..., m] = self._vlm.head(self.continued(ids_BQM)[:, :, m]).argmax(-1)
        return ids_BQM

    @property
    def stem_BQD(self) -> Tensor:
        """State at the clue layer of each question's last token."""
        hidden_BLD = self._pass() if self._hidden_BLD is None else self._hidden_BLD
        return pick(hidden_BLD, self._batch.stem_index_BQ)

    def _pass(self, own_BQMD: Tensor | None = None) -> Tensor:
        rows = self._batch.extraction
        embeds = F.embedding(rows.ids_BL, self._vlm.embeddings_VD)
        if own_BQMD is not None:
            embeds = place(embeds, self._batch.query_index_BQM, own_BQMD.to(embeds.dtype), self._batch.valid_BQ)
        return self._vlm.text_pass(embeds, rows.positions_BL, rows.allowed_BLL, prefix=self._prefix, stop_at=self.layer)

    # ------------------------------------------------------------------------- the backbone as it is
    def top_words(self, count: int, *, excluded: frozenset[str]) -> tuple[Tensor, Tensor]:
        """(probabilities, word ids), both [B, N, count]: the most probable content words of every visual token through
        the LM head, the highest first; probability 0 and `_` where there is none, probability 0 on padding. excluded: words that say
        nothing, lower case."""
        allowed_V = self.vocabulary.content_words(excluded).to(self.visual_BND.device)
        states = self.visual_BND.detach().flatten(0, 1).split(TOKENS_AT_ONCE)
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
        return at_visual_tokens(map_BLS, rows_BQ, self._batch.prefix)
