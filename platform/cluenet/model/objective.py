"""What a training step teaches: the loss terms of both stages.

They are computed inside one forward pass of the model, and which modules run does not depend on the data (masks, not
branches), so that distributed ranks stay in step whatever their clues look like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cluenet.config.train import Stage
from cluenet.model import evidence
from cluenet.model.alignment import alignment_term, counterfactual_term
from cluenet.model.clue_terms import Terms, clue_terms, only
from cluenet.model.clues import ClueStates, sequence_mean
from cluenet.model.losses import token_loss
from cluenet.model.packing import pick
from cluenet.model.utilities import filter_term
from cluenet.model.visual_dropout import drop_visual

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.evidence import Evidence
    from cluenet.model.pipeline import ClueNet, Look


def objective(model: ClueNet, batch: Batch, *, stage: Stage, seed: int, progress: float) -> Terms:
    """Of one micro-batch: "loss" (weighted sum), each term, `labels/<term>` counts, detached metrics.

    `progress` in 0..1: how much of the stage is over.
    """
    look = model.see(batch, stage)
    share = stage.truth_share_at(progress)
    if model.reasoner.sees_video and any(stage.visual_dropout):  # clues are extracted by now, from the whole video
        hidden_share = stage.visual_dropout_at(progress)
        look = look._replace(prefix=drop_visual(look.prefix, batch.prefix, share=hidden_share, seed=seed))
    read = evidence.for_training(model, batch, look, stage, truth_share=share, seed=seed)
    hidden = model.reason(batch, look.prefix, read.embeds_BQKWD)
    terms, counts = _answer_terms(model, batch, hidden, stage)
    if look.states and isinstance(model.extractor, nn.Module):
        for total, part in zip((terms, counts), _clue_terms(model, batch, look.states, stage)):
            total.update(part)
    if stage.losses.filter and model.filter.learned and model.reads_own(stage):
        terms["filter"], counts["filter"] = filter_term(
            model, batch, look, read, hidden, settings=stage.filter_loss, seed=seed
        )
    if model.slots:
        for total, part in zip((terms, counts), _tie_terms(model, batch, look, read, hidden, stage, seed)):
            total.update(part)
    weights = stage.losses.model_dump()
    loss = sum((weights[name] * value for name, value in terms.items()), torch.zeros((), device=hidden.device))
    return {"loss": loss, **terms, **_metrics(model, batch, hidden), **{f"labels/{k}": v for k, v in counts.items()}}


def _answer_terms(model: ClueNet, batch: Batch, hidden_BLD: Tensor, stage: Stage) -> tuple[Terms, Terms]:
    terms, counts = {}, {}
    if stage.losses.answer:
        terms["answer"], counts["answer"] = _answer_term(model, batch, hidden_BLD)
    if stage.losses.chain:
        rows = batch.answer.chain_rows
        logits = model.vlm.head(hidden_BLD[rows[:, 0], rows[:, 2]])
        terms["chain"] = (  # through the head in any case: its backward pass is one that sharded workers do together
            token_loss(logits, rows[:, 3], torch.ones_like(rows[:, 3])) if len(rows) else logits.sum() * 0
        )
        counts["chain"] = torch.tensor(len({(b, q) for b, q in rows[:, :2].tolist()}))
    return terms, counts


def _answer_term(model: ClueNet, batch: Batch, hidden_BLD: Tensor) -> tuple[Tensor, Tensor]:
    labels = batch.labels
    mask = labels.answered_BQ & batch.valid_BQ
    by_letter = mask & labels.num_options_BQ.gt(0) if model.letters else torch.zeros_like(mask)
    logits = model.vlm.head(pick(hidden_BLD, batch.answer.answer_index_BQ))
    letters = torch.tensor(model.letter_ids, device=hidden_BLD.device)
    values = F.cross_entropy(logits.flatten(0, 1).float(), letters[labels.gold_BQ].flatten(), reduction="none")
    rows = batch.answer.option_rows
    right = rows[rows[:, 2] == labels.gold_BQ[rows[:, 0], rows[:, 1]]] if len(rows) else rows
    right = right[mask[right[:, 0], right[:, 1]]]
    word_logits = model.vlm.head(hidden_BLD[right[:, 0], right[:, 3]])
    word_values = F.cross_entropy(word_logits.float(), right[:, 4], reduction="none")
    total = (values * by_letter.flatten()).sum() + word_values.sum()
    return total / (by_letter.sum() + len(right)).clamp(min=1), mask.sum()


def _clue_terms(model: ClueNet, batch: Batch, states: ClueStates, stage: Stage) -> tuple[Terms, Terms]:
    taught = states.taught_BQKWD
    logits = model.word_logits(states) if taught is None else model.vlm.head(taught)
    taught_by = model.extractor.taught_by(model.extractor.config)
    return clue_terms(
        batch.labels, batch.valid_BQ, logits, states, only(stage.losses, taught_by),
        none=model.collator.vocabulary.none, matching=model.extractor.matching,
    )  # fmt: skip


def _tie_terms(
    model: ClueNet, batch: Batch, look: Look, read: Evidence, hidden_BLD: Tensor, stage: Stage, seed: int
) -> tuple[Terms, Terms]:
    """What ties the answer to the clues that were read."""
    terms, counts = {}, {}
    if stage.losses.alignment:
        terms["alignment"], counts["alignment"] = alignment_term(
            model, batch, read, hidden_BLD, temperature=stage.alignment_temperature
        )
    if stage.losses.counterfactual:
        terms["counterfactual"], counts["counterfactual"] = counterfactual_term(
            model, batch, look.prefix, read, hidden_BLD, margin=stage.counterfactual_margin, seed=seed
        )
    return terms, counts


def _metrics(model: ClueNet, batch: Batch, hidden_BLD: Tensor) -> Terms:
    """Training accuracy of letter scoring, where it costs nothing."""
    if not model.letters:
        return {}
    with torch.no_grad():
        right = model.option_logprobs(batch, hidden_BLD).argmax(-1).eq(batch.labels.gold_BQ)
        known = batch.valid_BQ & batch.labels.answered_BQ & batch.labels.num_options_BQ.gt(0)
        return {"answer_accuracy": sequence_mean(right.float(), known)}
