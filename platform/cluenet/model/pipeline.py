"""ClueNet: the one place where components meet. Extract clues, filter them, reason over them, answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cluenet.config.pruning import NoPruning, Pruning, TwoPass
from cluenet.config.train import Stage
from cluenet.contracts import ClueExtractor, ClueFilter, Reasoner
from cluenet.model import evidence, pruning
from cluenet.model.batch import Batch, Collator, PrefixBatch
from cluenet.model.chains import with_written_chains
from cluenet.model.clues import ClueStates, confidence_of, group_mean
from cluenet.model.evidence import ClueRow, Evidence
from cluenet.model.generate import Writing, replies
from cluenet.model.grid import Grid
from cluenet.model.losses import option_logprobs
from cluenet.model.objective import objective
from cluenet.model.packing import pick, place
from cluenet.model.predict import answers_of
from cluenet.model.sight import Sight
from cluenet.model.tuning import parameter_counts
from cluenet.model.utilities import Probe, gold_logprob
from cluenet.model.vision import EncodedClip
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.records import Answer, Example, Frames

VECTORS = ("queries", "presence")
"""Parts of an extractor that are no hidden matrices, whatever their shape."""


class Look(NamedTuple):
    """What one look at the videos leaves."""

    prefix: Prefix | None  # the prompts' key-value cache
    states: ClueStates | None  # of the clue slots
    stem_BQD: Tensor | None  # question stems at the clue layer


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
            generates=reasoner.config.generate_chain,
        )  # fmt: skip
        self.letter_ids = vlm.letter_ids()
        self.pruning: Pruning = NoPruning()

    def prune(self, how: Pruning) -> ClueNet:
        """From now on answers see these visual tokens of the videos that are watched. Not for training. Returns itself.

        Raises CluenetError where this model cannot be pruned so."""
        pruning.check(self, how)
        self.pruning = how
        return self

    def collate(
        self,
        clips: Sequence[tuple[Frames | EncodedClip, Sequence[Example]]],
        *,
        seed: int,
        shuffle_options: bool,
        chain: bool = False,
    ) -> Batch:
        return self.collator(clips, seed=seed, shuffle_options=shuffle_options, chain=chain)

    # ----------------------------------------------------------------------------------- training
    def forward(self, batch: Batch, *, stage: Stage, seed: int, progress: float = 0.0) -> dict[str, Tensor]:
        """All losses of a micro-batch: see `objective`."""
        return objective(self, batch, stage=stage, seed=seed, progress=progress)

    def reads_own(self, stage: Stage) -> bool:
        """Whether the reasoner reads what the extractor states."""
        return stage.clues == "own" and self.extracts

    # --------------------------------------------------------------------------------------- clues
    def see(self, batch: Batch, stage: Stage | None = None) -> Look:
        """The video once per clip, then the extraction pass. `stage`: that is trained; None at inference."""
        return self.look_through(batch, self.watch(batch.prefix), stage)

    def watch(self, prompts: PrefixBatch) -> Prefix | None:
        """What all questions about these clips share; None for a model that looks at no video."""
        if not (self.extracts or self.reasoner.sees_video):
            return None
        if isinstance(self.pruning, TwoPass):
            return pruning.first_pass(self, prompts, self.pruning)
        layer = self.extractor.layer if self.extracts else None
        return self.vlm.prefix(prompts, layer=layer, whole=self.reasoner.sees_video)

    def look_through(self, batch: Batch, prefix: Prefix | None, stage: Stage | None = None) -> Look:
        """The extraction pass, on videos that were watched already."""
        if prefix is None or not self.extracts:
            return Look(prefix, None, None)
        sight = Sight(
            self.vlm, self.collator.vocabulary, batch, prefix, self.extractor.layer, reads_own=stage is None or self.reads_own(stage),
            teacher_BQKW=batch.labels.words_BQKW if stage and stage.losses.concept else None,
        )  # fmt: skip
        return Look(prefix, self.extractor.read(sight), sight.stem_BQD)

    def word_logits(self, states: ClueStates | None) -> Tensor | None:
        """[B, Q, K, W, V] of the words that the slots say; None where they are not read from states."""
        if states is None or states.words_BQKWD is None:
            return None
        if states.logits_BQKWV is None:
            states.logits_BQKWV = self.vlm.head(states.words_BQKWD)
        return states.logits_BQKWV

    def displayed(self, ids_BQKW: Tensor) -> Tensor:
        """[B, Q, K, W, D] clue words as the reasoner reads them; slots of `none` say nothing."""
        if not self.slots:
            return self.vlm.embeddings_VD.new_zeros(*ids_BQKW.shape, self.vlm.width)
        return F.embedding(ids_BQKW, self.vlm.embeddings_VD) + self.slot_embedding

    @property
    def slot_embedding(self) -> Tensor:
        return self.slot_embedding_KWD[: self.slots]

    def silence(self, ids_BQKW: Tensor) -> Tensor:
        """[B, Q, K, W, D] embeddings of slots that say nothing."""
        return self.displayed(torch.full_like(ids_BQKW, self.collator.vocabulary.none))

    def gate_logits(self, look: Look, ids_BQKW: Tensor) -> Tensor | None:
        """[B, Q, K] what the filter's gate says of these words, whoever states them."""
        confidence = confidence_of(self.word_logits(look.states), ids_BQKW)
        return self.filter.gate_logits(self.displayed(ids_BQKW), look.stem_BQD, confidence)

    def probe(self, batch: Batch, prefix: Prefix | None) -> Probe:
        """The reasoner, to be asked what clues are worth."""
        empty = self.silence(batch.labels.words_BQKW)
        return Probe(lambda clues: gold_logprob(self, *self.reasoned(batch, prefix, clues)), empty)

    # ------------------------------------------------------------------------------------- answer
    def tokens_seen(self, grid: Grid) -> int:
        """How many visual tokens of such a clip an answer sees at inference."""
        return self.pruning.count(grid.tokens) if self.reasoner.sees_video else 0

    def reason(self, batch: Batch, prefix: Prefix | None, clues_BQKWD: Tensor) -> Tensor:
        """[B, L, D] states of the answer pass, which reads these clues."""
        rows = batch.answer.packed
        embeds = self.answer_inputs(batch, clues_BQKWD)
        return self.vlm.text_pass(embeds, rows.positions_BL, rows.allowed_BLL, prefix=self.seen(prefix))

    def reasoned(self, batch: Batch, prefix: Prefix | None, clues_BQKWD: Tensor) -> tuple[Batch, Tensor]:
        """The batch and the states of its answer pass [B, L, D]. At inference a model with `generate_chain` first writes,
        from these clues, the chains that the returned batch holds; in training they are the labelled ones."""
        if self.reasoner.config.generate_chain and not self.training:
            inputs = self.answer_inputs(batch, clues_BQKWD)
            batch = with_written_chains(self, batch, self.seen(prefix), inputs)
        return batch, self.reason(batch, prefix, clues_BQKWD)

    def answer_inputs(self, batch: Batch, clues_BQKWD: Tensor) -> Tensor:
        """[B, L, D] embeddings of the answer pass's tokens, clues in place."""
        embeds = F.embedding(batch.answer.packed.ids_BL, self.vlm.embeddings_VD)
        if not self.slots:
            return embeds
        return place(embeds, batch.answer.clue_index_BQKW, clues_BQKWD.to(embeds.dtype), batch.valid_BQ)

    def seen(self, prefix: Prefix | None) -> Prefix | None:
        """What of the video the answer pass sees."""
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

    # ---------------------------------------------------------------------------------- inference
    def predict(self, batch: Batch, *, clues: ClueRow = "own", seed: int = 0) -> list[Answer]:
        """One answer per example, in the order of `batch.examples`; `clues` as in `predict_rows`."""
        return self.predict_rows(batch, (clues,), seed=seed)[clues]

    def predict_rows(
        self, batch: Batch, rows: Sequence[ClueRow], *, seed: int = 0, look: Look | None = None, writing: Writing | None = None
    ) -> dict[ClueRow, list[Answer]]:  # fmt: skip
        """Answers with several kinds of clues (`evidence.for_row`), the video being looked at once for all of them.

        `look`: what `self.look(batch)` returned, where it is needed for more than these rows. `writing`: which questions are
        answered by writing; by default the open ones.
        """
        with self.inference():
            look, how = look or self.see(batch), writing or Writing()
            return {
                row: self._answers(batch, look.prefix, evidence.for_row(self, row, batch, look, seed), how)
                for row in rows
            }

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
            return self.see(batch)

    def own_evidence(self, batch: Batch, look: Look, *, seed: int = 0) -> Evidence:
        """The clues of row `own`: the model's after the filter, or the labels' where it states none of its own."""
        with self.inference():
            return evidence.for_row(self, "own", batch, look, seed)

    def refiltered(self, batch: Batch, ids_BQKW: Tensor, present_BQK: Tensor, look: Look, *, seed: int = 0) -> Evidence:
        """Other clues, in words, offered to the filter as if the model had stated them."""
        with self.inference():
            words = self.displayed(ids_BQKW)
            return evidence.filtered(self, batch, look, words, ids_BQKW, present_BQK, None, seed=seed)

    def logprobs_given(self, batch: Batch, prefix: Prefix | None, clues_BQKWD: Tensor) -> Tensor:
        """[B, Q, A] log-probabilities of the options, whatever the reasoner is given to read."""
        with self.inference():
            return self.option_logprobs(*self.reasoned(batch, prefix, clues_BQKWD))

    def _answers(self, batch: Batch, prefix: Prefix | None, read: Evidence, writing: Writing) -> list[Answer]:
        batch, prefix, read = pruning.pruned(self, batch, prefix, read)
        batch, hidden = self.reasoned(batch, prefix, read.embeds_BQKWD)
        texts = replies(self, batch, self.seen(prefix), self.answer_inputs(batch, read.embeds_BQKWD), writing)
        return answers_of(self, batch, read, self.option_logprobs(batch, hidden), texts)

    # -------------------------------------------------------------------------------- description
    def matrix_parameters(self) -> list[nn.Parameter]:
        """The 2-D hidden matrices that Muon orthogonalises: no embeddings, heads, gates, norms or biases."""
        own = self.extractor.named_parameters() if isinstance(self.extractor, nn.Module) else ()  # or it has none
        mine = [p for name, p in own if p.ndim == 2 and not any(part in name for part in VECTORS)]
        return [*self.vlm.matrices.values(), *mine]

    def describe(self) -> dict[str, Any]:
        return dict(parameter_counts(self))
