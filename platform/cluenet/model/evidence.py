"""The clues of a batch on their way to the reasoner: the labels', or the model's own, filtered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cluenet.config.train import Stage
from cluenet.model.clues import expected, straight_through
from cluenet.model.utilities import exact_utilities
from cluenet.records import content_hash

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet, Look

ClueRow = Literal["own", "stated", "oracle", "none", "text"]


@dataclass
class Evidence:
    """What the reasoner reads, and what is displayed."""

    embeds_BQKWD: Tensor  # words as input embeddings
    ids_BQKW: Tensor  # the words themselves
    present_BQK: Tensor  # which slots say something
    gate_BQK: Tensor | None
    keep_BQK: Tensor
    attention_BQKN: Tensor | None


def truth(model: ClueNet, batch: Batch) -> Evidence:
    ids = batch.labels.words_BQKW
    present = ids.ne(model.collator.vocabulary.none).any(-1)
    return Evidence(model.displayed(ids), ids, present, None, present, batch.labels.attention_BQKN)


def own(model: ClueNet, batch: Batch, look: Look, *, seed: int) -> Evidence:
    """What the extractor states, after the filter."""
    return filtered(model, batch, look, *_stated(model, look), seed=seed)


def unfiltered(model: ClueNet, look: Look) -> Evidence:
    """What the extractor states, behind no filter."""
    words, ids, present, attention = _stated(model, look)
    embeds = torch.where(present[..., None, None], words, model.silence(ids))
    return Evidence(embeds, ids, present, None, present, attention)


def _stated(model: ClueNet, look: Look) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(words as input embeddings [B, Q, K, W, D], their ids, which slots say something, attention)."""
    states, logits = look.states, model.word_logits(look.states)
    if logits is None:
        ids, words = states.ids_BQKW, model.displayed(states.ids_BQKW)
    else:
        read = expected if model.extractor.bottleneck == "soft" else straight_through
        ids, words = logits.argmax(-1), read(logits, model.vlm.embeddings_VD) + model.slot_embedding
    scores = states.presence_BQK
    present = model.collator.vocabulary.present(ids) if scores is None else scores > 0
    return words, ids, present, states.attention_BQKN


def filtered(model: ClueNet, batch: Batch, look: Look, words, ids, present, attention, *, seed: int) -> Evidence:
    """words [B, Q, K, W, D]: embeddings of ids [B, Q, K, W]; present [B, Q, K]: which slots say something."""
    empty = model.silence(ids)
    words = torch.where(present[..., None, None], words, empty)
    if model.training:  # the gate is a side head: it filters at inference only
        return Evidence(words, ids, present, None, present, attention)
    said = ids.masked_fill(~present[..., None], model.collator.vocabulary.none)
    scores = model.gate_logits(look, said)
    gate = None if scores is None else scores.float().sigmoid()
    judged = exact_utilities(model, batch, look.prefix, ids, present) if model.filter.sees_answer else gate
    keep = model.filter.keep(judged, present, seeds_BQ=question_seeds(batch, seed))
    share = model.filter.shares(gate, keep).to(words.dtype)[..., None, None]
    return Evidence(torch.lerp(empty, words, share), ids, present, gate, keep, attention)


def for_training(model: ClueNet, batch: Batch, look: Look, stage: Stage, *, truth_share: float, seed: int) -> Evidence:
    if not model.reads_own(stage):
        return truth(model, batch)
    evidence = own(model, batch, look, seed=0)
    if not stage.coupled:
        evidence.embeds_BQKWD = evidence.embeds_BQKWD.detach()
    return _mix_in_truth(model, batch, evidence, truth_share, seed)


def _mix_in_truth(model: ClueNet, batch: Batch, evidence: Evidence, share: float, seed: int) -> Evidence:
    """A share of the labelled questions reads ground truth; the gate does not learn from those."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(batch.valid_BQ.shape, generator=generator).to(batch.valid_BQ.device) < share
    mixed_BQ1 = (drawn & batch.labels.labelled_BQ)[..., None]
    true = truth(model, batch)
    return replace(
        evidence,
        embeds_BQKWD=torch.where(mixed_BQ1[..., None, None], true.embeds_BQKWD, evidence.embeds_BQKWD),
        ids_BQKW=torch.where(mixed_BQ1[..., None], true.ids_BQKW, evidence.ids_BQKW),
        keep_BQK=torch.where(mixed_BQ1, true.keep_BQK, evidence.keep_BQK),
        present_BQK=evidence.present_BQK & ~mixed_BQ1,
    )


def for_row(model: ClueNet, row: ClueRow, batch: Batch, look: Look, seed: int) -> Evidence:
    """At inference: `own`, the model's clues after the filter, or the labels' where it states none; `stated`, the same before
    the filter; `oracle`, ground truth; `none`; `text`, the displayed words, read back."""
    if row == "oracle" or not model.slots:
        return truth(model, batch)
    if row == "stated" and model.extracts:
        return unfiltered(model, look)
    mine = own(model, batch, look, seed=seed) if model.extracts else truth(model, batch)
    if row == "none":
        return replace(mine, embeds_BQKWD=model.silence(mine.ids_BQKW), keep_BQK=torch.zeros_like(mine.keep_BQK))
    if row == "text":
        shown = mine.ids_BQKW.masked_fill(~mine.keep_BQK[..., None], model.collator.vocabulary.none)
        return replace(mine, embeds_BQKWD=model.displayed(_through_text(model, shown)))
    return mine


def _through_text(model: ClueNet, ids_BQKW: Tensor) -> Tensor:
    """Ids -> displayed words -> ids: proves that the words carry everything."""
    vocabulary = model.collator.vocabulary
    flat = [vocabulary.recode(vocabulary.decode(row)) for row in ids_BQKW.flatten(0, -2).tolist()]
    return torch.tensor(flat, device=ids_BQKW.device).view_as(ids_BQKW)


def question_seeds(batch: Batch, seed: int) -> Tensor:
    """[B, Q] a seed for every question that depends on the question alone, not on its batch."""
    seeds = torch.zeros(batch.valid_BQ.shape, dtype=torch.long)
    for b, clip in enumerate(batch.clips):
        for q, example in enumerate(clip):
            seeds[b, q] = int(content_hash(seed, example.dataset, example.id, length=15), 16)
    return seeds
