"""ClueNet: the one place where components meet. Extract clues, filter them, reason over them, answer.

All losses of a step are computed inside one `forward`, and which modules run does not depend on the data (masks, not
branches), so that distributed ranks stay in step whatever their clues look like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cluenet.config.train import Stage
from cluenet.contracts import ClueExtractor, ClueFilter, Reasoner
from cluenet.model.batch import Batch, Collator
from cluenet.model.clue_terms import clue_terms, only
from cluenet.model.clues import ClueStates, group_mean, sequence_mean, straight_through
from cluenet.model.generate import open_answers
from cluenet.model.losses import option_logprobs, token_loss
from cluenet.model.packing import pick, place
from cluenet.model.predict import answers_of
from cluenet.model.sight import Sight
from cluenet.model.utilities import Probe, exact_utilities, filter_term, gold_logprob
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.records import Answer, Example, Frames, content_hash

ClueRow = Literal["own", "oracle", "none", "text"]
VECTORS = ("queries", "presence")
"""Parts of an extractor that are no hidden matrices, whatever their shape."""
Look = tuple[Prefix | None, ClueStates | None, Tensor | None]
"""What one look at the videos leaves: prompts' key-value cache, states of the clue slots, question stems [B, Q, D]."""


@dataclass
class Evidence:
    """Clues of a batch on their way to the reasoner."""

    embeds_BQKWD: Tensor  # words as input embeddings
    ids_BQKW: Tensor  # the words themselves
    present_BQK: Tensor
    gate_BQK: Tensor | None
    keep_BQK: Tensor
    attention_BQKN: Tensor | None


class ClueNet(nn.Module):
    """`vlm` with its clue extractor, clue filter and reasoner."""

    def __init__(self, vlm: VisionLanguageModel, extractor: ClueExtractor, clue_filter: ClueFilter, reasoner: Reasoner):
        super().__init__()
        self.vlm, self.extractor, self.filter, self.reasoner = vlm, extractor, clue_filter, reasoner
        self.slots = extractor.slots if reasoner.sees_clues else 0
        self.extracts = self.slots > 0 and extractor.layer is not None
        if self.slots:
            marks = torch.randn(extractor.slots, extractor.words, vlm.width) * 0.05
            # a backbone that nobody trains must read words as it knows them
            self.slot_embedding_KWD = nn.Parameter(marks * 0 if extractor.training_free else marks)
        self.letters = reasoner.config.scoring == "letters"
        self.collator = Collator(
            vlm, slots=self.slots, words=extractor.words, extracts=self.extracts,
            sees_video=reasoner.sees_video, letters=self.letters, queries=extractor.queries if self.extracts else 0,
        )  # fmt: skip
        self.letter_ids = vlm.letter_ids()

    def collate(
        self,
        clips: Sequence[tuple[Frames, Sequence[Example]]],
        *,
        seed: int,
        shuffle_options: bool,
        chain: bool = False,
    ) -> Batch:
        return self.collator(clips, seed=seed, shuffle_options=shuffle_options, chain=chain)

    # ----------------------------------------------------------------------------------- training
    def forward(self, batch: Batch, *, stage: Stage, seed: int, progress: float = 0.0) -> dict[str, Tensor]:
        """Loss terms of one micro-batch: "loss" (weighted sum), each term, `labels/<term>` counts, detached metrics.

        `progress` in 0..1: how much of the stage is over.
        """
        prefix, states, _ = look = self._look(batch, stage)
        word_logits = self._word_logits(states)
        share = stage.truth_share_at(progress)
        evidence = self._train_evidence(batch, word_logits, look, stage, share, seed)
        hidden = self._reason(batch, prefix, evidence.embeds_BQKWD)
        terms, counts = self._answer_terms(batch, hidden, stage)
        if states and isinstance(self.extractor, nn.Module):
            for total, part in zip((terms, counts), self._clue_terms(batch, word_logits, states, stage)):
                total.update(part)
        metrics = self._metrics(batch, hidden)
        if stage.losses.filter and self.filter.learned and self._reads_own(stage):
            terms["filter"], counts["filter"] = filter_term(
                self, batch, look, evidence, hidden, settings=stage.filter_loss, seed=seed
            )
        weights = stage.losses.model_dump()
        loss = sum((weights[name] * value for name, value in terms.items()), torch.zeros((), device=hidden.device))
        return {"loss": loss, **terms, **metrics, **{f"labels/{name}": value for name, value in counts.items()}}

    def _look(self, batch: Batch, stage: Stage | None = None) -> Look:
        """The video once per clip, then the extraction pass. `stage`: that is trained; None at inference."""
        if not (self.extracts or self.reasoner.sees_video):
            return None, None, None
        layer = self.extractor.layer if self.extracts else None
        prefix = self.vlm.prefix(batch.prefix, layer=layer, whole=self.reasoner.sees_video)
        if not self.extracts:
            return prefix, None, None
        sight = Sight(
            self.vlm, self.collator.vocabulary, batch, prefix, layer, reads_own=stage is None or self._reads_own(stage),
            teacher_BQKW=batch.labels.words_BQKW if stage and stage.losses.concept else None,
        )  # fmt: skip
        states = self.extractor.read(sight)
        return prefix, states, sight.stem_BQD

    def _word_logits(self, states: ClueStates | None) -> Tensor | None:
        return self.vlm.head(states.words_BQKWD) if states and states.words_BQKWD is not None else None

    def _reads_own(self, stage: Stage) -> bool:
        return stage.clues == "own" and self.extracts

    def _train_evidence(
        self, batch: Batch, logits, look: Look, stage: Stage, truth_share: float, seed: int
    ) -> Evidence:
        if not self._reads_own(stage):
            return self._truth(batch)
        evidence = self._own(batch, logits, look, seed=0)
        if not stage.coupled:
            evidence.embeds_BQKWD = evidence.embeds_BQKWD.detach()
        return self._mix_in_truth(batch, evidence, truth_share, seed)

    def _mix_in_truth(self, batch: Batch, own: Evidence, share: float, seed: int) -> Evidence:
        """A share of the labelled questions reads ground truth; the gate does not learn from those."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(batch.valid_BQ.shape, generator=generator).to(batch.valid_BQ.device) < share
        mixed_BQ1 = (drawn & batch.labels.labelled_BQ)[..., None]
        truth = self.displayed(batch.labels.words_BQKW)
        embeds = torch.where(mixed_BQ1[..., None, None], truth, own.embeds_BQKWD)
        return replace(own, embeds_BQKWD=embeds, present_BQK=own.present_BQK & ~mixed_BQ1)

    def _answer_terms(
        self, batch: Batch, hidden_BLD: Tensor, stage: Stage
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        labels, terms, counts = batch.labels, {}, {}
        if stage.losses.answer:
            mask = labels.answered_BQ & batch.valid_BQ
            by_letter = mask & labels.num_options_BQ.gt(0) if self.letters else torch.zeros_like(mask)
            logits = self.vlm.head(pick(hidden_BLD, batch.answer.answer_index_BQ))
            letters = torch.tensor(self.letter_ids, device=hidden_BLD.device)
            values = F.cross_entropy(logits.flatten(0, 1).float(), letters[labels.gold_BQ].flatten(), reduction="none")
            rows = batch.answer.option_rows
            right = rows[rows[:, 2] == labels.gold_BQ[rows[:, 0], rows[:, 1]]] if len(rows) else rows
            right = right[mask[right[:, 0], right[:, 1]]]
            word_logits = self.vlm.head(hidden_BLD[right[:, 0], right[:, 3]])
            word_values = F.cross_entropy(word_logits.float(), right[:, 4], reduction="none")
            total = (values * by_letter.flatten()).sum() + word_values.sum()
            terms["answer"] = total / (by_letter.sum() + len(right)).clamp(min=1)
            counts["answer"] = mask.sum()
        if stage.losses.chain:
            rows = batch.answer.chain_rows
            logits = self.vlm.head(hidden_BLD[rows[:, 0], rows[:, 2]])
            terms["chain"] = (
                token_loss(logits, rows[:, 3], torch.ones_like(rows[:, 3])) if len(rows) else hidden_BLD.sum() * 0
            )
            counts["chain"] = torch.tensor(len({(b, q) for b, q in rows[:, :2].tolist()}))
        return terms, counts

    def _clue_terms(self, batch: Batch, logits_BQKWV: Tensor | None, states: ClueStates, stage: Stage):
        if states.taught_BQKWD is not None:
            logits_BQKWV = self.vlm.head(states.taught_BQKWD)
        taught_by = self.extractor.taught_by(self.extractor.config)
        return clue_terms(
            batch.labels, batch.valid_BQ, logits_BQKWV, states, only(stage.losses, taught_by),
            none=self.collator.vocabulary.none, matching=self.extractor.matching,
        )  # fmt: skip

    # ----------------------------------------------------------------------------------- evidence
    def _truth(self, batch: Batch) -> Evidence:
        ids = batch.labels.words_BQKW
        present = batch.labels.words_BQKW.ne(self.collator.vocabulary.none).any(-1)
        return Evidence(self.displayed(ids), ids, present, None, present, batch.labels.attention_BQKN)

    def _own(self, batch: Batch, logits: Tensor | None, look: Look, *, seed: int) -> Evidence:
        states = look[1]
        if logits is None:
            ids, words = states.ids_BQKW, self.displayed(states.ids_BQKW)
        else:
            ids = logits.argmax(-1)
            words = straight_through(logits, self.vlm.embeddings_VD) + self._slot_embedding()
        scores = states.presence_BQK
        present = self.collator.vocabulary.present(ids) if scores is None else scores > 0
        return self._filtered(batch, look, words, ids, present, states.attention_BQKN, seed=seed)

    def _filtered(self, batch: Batch, look: Look, words, ids, present, attention, *, seed: int) -> Evidence:
        """words [B, Q, K, W, D]: embeddings of ids [B, Q, K, W]; present [B, Q, K]: which slots say something."""
        empty = self._empty(ids)
        words = torch.where(present[..., None, None], words, empty)
        if self.training:  # the gate is a side head: it filters at inference only
            return Evidence(words, ids, present, None, present, attention)
        logits = self.filter.gate_logits(words, look[2])
        gate = None if logits is None else logits.float().sigmoid()
        judged = exact_utilities(self, batch, look[0], ids, present) if self.filter.sees_answer else gate
        keep = self.filter.keep(judged, present, seeds_BQ=_seeds(batch, seed))
        share = self.filter.shares(gate, keep).to(words.dtype)[..., None, None]
        return Evidence(torch.lerp(empty, words, share), ids, present, gate, keep, attention)

    def probe(self, batch: Batch, prefix: Prefix | None) -> Probe:
        """The reasoner, to be asked what clues are worth."""
        empty = self._empty(batch.labels.words_BQKW)
        return Probe(lambda clues: gold_logprob(self, batch, self._reason(batch, prefix, clues)), empty)

    def displayed(self, ids_BQKW: Tensor) -> Tensor:
        """[B, Q, K, W, D] clue words as the reasoner reads them; slots of `none` say nothing."""
        if not self.slots:
            return self.vlm.embeddings_VD.new_zeros(*ids_BQKW.shape, self.vlm.width)
        return F.embedding(ids_BQKW, self.vlm.embeddings_VD) + self._slot_embedding()

    def _slot_embedding(self) -> Tensor:
        return self.slot_embedding_KWD[: self.slots]

    def _empty(self, ids_BQKW: Tensor) -> Tensor:
        """[B, Q, K, W, D] embeddings of slots that say nothing."""
        return self.displayed(torch.full_like(ids_BQKW, self.collator.vocabulary.none))

    # ------------------------------------------------------------------------------------- answer
    def _reason(self, batch: Batch, prefix: Prefix | None, clues_BQKWD: Tensor) -> Tensor:
        rows = batch.answer.packed
        embeds = self._answer_inputs(batch, clues_BQKWD)
        return self.vlm.text_pass(embeds, rows.positions_BL, rows.allowed_BLL, prefix=self._seen(prefix))

    def _answer_inputs(self, batch: Batch, clues_BQKWD: Tensor) -> Tensor:
        embeds = F.embedding(batch.answer.packed.ids_BL, self.vlm.embeddings_VD)
        if not self.slots:
            return embeds
        return place(embeds, batch.answer.clue_index_BQKW, clues_BQKWD.to(embeds.dtype), batch.valid_BQ)

    def _seen(self, prefix: Prefix | None) -> Prefix | None:
        return prefix if self.reasoner.sees_video else None

    def scores(self, batch: Batch, hidden_BLD: Tensor) -> Tensor:
        """[B, Q, A] unnormalised log-probabilities of the options: of their letters, or per token of their words."""
        width = max(2, int(batch.labels.num_options_BQ.max()))
        if self.letters:
            logits = self.vlm.head(pick(hidden_BLD, batch.answer.answer_index_BQ)).float().log_softmax(-1)
            return logits[..., self.letter_ids[:width]]
        rows = batch.answer.option_rows
        rows = rows[batch.labels.num_options_BQ[rows[:, 0], rows[:, 1]] > 0]
        logprob = self.vlm.head(hidden_BLD[rows[:, 0], rows[:, 3]]).float().log_softmax(-1)
        values = logprob.gather(-1, rows[:, 4:5])[:, 0]
        shape = torch.Size((*batch.valid_BQ.shape, width))
        option = (rows[:, 0] * shape[1] + rows[:, 1]) * width + rows[:, 2]
        return group_mean(values, option, shape.numel()).view(shape)

    def option_logprobs(self, batch: Batch, hidden_BLD: Tensor) -> Tensor:
        return option_logprobs(self.scores(batch, hidden_BLD), batch.labels.num_options_BQ)

    def _metrics(self, batch: Batch, hidden_BLD: Tensor) -> dict[str, Tensor]:
        """Training accuracy of letter scoring, where it costs nothing."""
        if not self.letters:
            return {}
        with torch.no_grad():
            right = self.option_logprobs(batch, hidden_BLD).argmax(-1).eq(batch.labels.gold_BQ)
            known = batch.valid_BQ & batch.labels.answered_BQ & batch.labels.num_options_BQ.gt(0)
            return {"answer_accuracy": sequence_mean(right.float(), known)}

    # ---------------------------------------------------------------------------------- inference
    def predict(self, batch: Batch, *, clues: ClueRow = "own", seed: int = 0) -> list[Answer]:
        """One answer per example, in the order of `batch.examples`; `clues` as in `predict_rows`."""
        return self.predict_rows(batch, (clues,), seed=seed)[clues]

    def predict_rows(
        self, batch: Batch, rows: Sequence[ClueRow], *, seed: int = 0, look: Look | None = None
    ) -> dict[ClueRow, list[Answer]]:
        """Answers with several kinds of clues, the video being looked at once for all of them.

        `own`: the model's clues after the filter; `oracle`: ground truth; `none`; `text`: the displayed words, read back.
        `look`: what `self.look(batch)` returned, where it is needed for more than these rows.
        """
        with self.inference():
            look = look or self._look(batch)
            return {row: self._answers(batch, look[0], self._evidence_for(row, batch, look, seed)) for row in rows}

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode without gradients; the mode before comes back."""
        was_training, _ = self.training, self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def look(self, batch: Batch) -> Look:
        """What the model sees of every clip and, for its clues, in the light of every question."""
        with self.inference():
            return self._look(batch)

    def own_evidence(self, batch: Batch, look: Look, *, seed: int = 0) -> Evidence:
        """The clues of row `own`: the model's after the filter, or the labels' where it states none of its own."""
        with self.inference():
            return self._evidence_for("own", batch, look, seed)

    def refiltered(self, batch: Batch, ids_BQKW: Tensor, present_BQK: Tensor, look: Look, *, seed: int = 0) -> Evidence:
        """Other clues, in words, offered to the filter as if the model had stated them."""
        with self.inference():
            return self._filtered(batch, look, self.displayed(ids_BQKW), ids_BQKW, present_BQK, None, seed=seed)

    def logprobs_given(self, batch: Batch, prefix: Prefix | None, clues_BQKWD: Tensor) -> Tensor:
        """[B, Q, A] log-probabilities of the options, whatever the reasoner is given to read."""
        with self.inference():
            return self.option_logprobs(batch, self._reason(batch, prefix, clues_BQKWD))

    def _answers(self, batch: Batch, prefix: Prefix | None, evidence: Evidence) -> list[Answer]:
        hidden = self._reason(batch, prefix, evidence.embeds_BQKWD)
        texts = open_answers(self, batch, self._seen(prefix), self._answer_inputs(batch, evidence.embeds_BQKWD))
        return answers_of(self, batch, evidence, self.option_logprobs(batch, hidden), texts)

    def _evidence_for(self, clues: ClueRow, batch: Batch, look: Look, seed: int) -> Evidence:
        truth = self._truth(batch)
        if clues == "oracle" or not self.slots:
            return truth
        own = self._own(batch, self._word_logits(look[1]), look, seed=seed) if self.extracts else truth
        if clues == "none":
            return Evidence(self._empty(own.ids_BQKW), own.ids_BQKW, own.present_BQK, own.gate_BQK,
                            torch.zeros_like(own.keep_BQK), own.attention_BQKN)  # fmt: skip
        if clues == "text":
            shown = own.ids_BQKW.masked_fill(~own.keep_BQK[..., None], self.collator.vocabulary.none)
            own.embeds_BQKWD = self.displayed(self._through_text(shown))
        return own

    def _through_text(self, ids_BQKW: Tensor) -> Tensor:
        """Ids -> displayed words -> ids: proves that the words carry everything."""
        vocabulary = self.collator.vocabulary
        flat = [vocabulary.recode(vocabulary.decode(row)) for row in ids_BQKW.flatten(0, -2).tolist()]
        return torch.tensor(flat, device=ids_BQKW.device).view_as(ids_BQKW)

    # -------------------------------------------------------------------------------- description
    def matrix_parameters(self) -> list[nn.Parameter]:
        """The 2-D hidden matrices that Muon orthogonalises: no embeddings, heads, gates, norms or biases."""
        names = (
            "vlm.hf.model.language_model.layers.",
            "vlm.hf.model.visual.blocks.",
            "vlm.hf.model.visual.merger.",
            "extractor.",
        )
        return [
            p
            for name, p in self.named_parameters()
            if p.ndim == 2 and name.startswith(names) and not any(part in name for part in VECTORS)
        ]

    def describe(self) -> dict[str, Any]:
        backbone = sum(p.numel() for p in self.vlm.parameters())
        return {
            "backbone_parameters": backbone,
            "clue_parameters": sum(p.numel() for p in self.parameters()) - backbone,
        }


def _seeds(batch: Batch, seed: int) -> Tensor:
    """[B, Q] a seed for every question that depends on the question alone, not on its batch."""
    seeds = torch.zeros(batch.valid_BQ.shape, dtype=torch.long)
    for b, clip in enumerate(batch.clips):
        for q, example in enumerate(clip):
            seeds[b, q] = int(content_hash(seed, example.dataset, example.id, length=15), 16)
    return seeds
