"""Clue supervision: what the labelled clues teach the extractor's slots."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.config.train import Losses
from cluenet.model.clues import ClueStates, sequence_mean, span_moments
from cluenet.model.losses import attention_loss, token_loss
from cluenet.model.matching import Matching, clue_order, reordered

if TYPE_CHECKING:
    from cluenet.model.batch import Labels

Terms = dict[str, Tensor]
CLUE_TERMS = {"concept", "attention", "span", "presence"}


def only(losses: Losses, names: Collection[str]) -> Losses:
    """The weights with those of other clue terms than `names` at 0."""
    return losses.model_copy(update=dict.fromkeys(CLUE_TERMS - set(names), 0.0))


def clue_terms(
    labels: Labels, valid_BQ: Tensor, logits_BQKWV: Tensor | None, states: ClueStates, losses: Losses, *, none: int,
    matching: Matching = "ordered",
) -> tuple[Terms, Terms]:  # fmt: skip
    """(loss terms, how many labels each had) of those that have a weight. none: id of the word of unused slots.

    logits_BQKWV may be None where `concept` has no weight and matching is ordered.
    """
    labelled_BQ1 = (labels.labelled_BQ & valid_BQ)[..., None]
    if matching == "hungarian":
        order = clue_order(logits_BQKWV, states, labels, concept=losses.concept, attention=losses.attention)
        labels = reordered(labels, order)
    terms: Terms = {}
    counts: Terms = {}
    if losses.concept:
        mask = labelled_BQ1[..., None].expand_as(labels.words_BQKW)
        terms["concept"] = token_loss(logits_BQKWV, labels.words_BQKW, mask)
        counts["concept"] = labelled_BQ1.sum()
    if losses.attention:
        mask = labels.located_BQK & labelled_BQ1
        terms["attention"] = attention_loss(states.attention_BQKN, labels.attention_BQKN, mask)
        counts["attention"] = mask.sum()
    if losses.span:
        mask = labels.timed_BQK & labelled_BQ1
        spans_BQK2 = span_moments(states.attention_BQKN, labels.block_span_BN2)
        terms["span"] = span_loss(spans_BQK2, labels.span_BQK2, mask)
        counts["span"] = mask.sum()
    if losses.presence and states.presence_BQK is not None:
        truth_BQK = labels.words_BQKW.ne(none).any(-1)
        terms["presence"] = presence_loss(states.presence_BQK, truth_BQK, labelled_BQ1)
        counts["presence"] = labelled_BQ1.sum()
    return terms, counts


def span_loss(span_BQK2: Tensor, target_BQK2: Tensor, mask_BQK: Tensor) -> Tensor:
    """|start - start*| + |end - end*| + 1 - tIoU, the temporal form of set prediction's box loss (Moment-DETR, arXiv
    2107.09609). Spans [..., 2] are start and end in fractions of the clip. The first part pulls where nothing overlaps."""
    distance = (span_BQK2 - target_BQK2).abs().sum(-1)
    (start, end), (true_start, true_end) = span_BQK2.unbind(-1), target_BQK2.unbind(-1)
    common = (torch.minimum(end, true_end) - torch.maximum(start, true_start)).clamp_min(0)
    union = (end - start) + (true_end - true_start) - common
    return sequence_mean(distance + 1 - common / union.clamp_min(1e-6), mask_BQK)


def presence_loss(scores_BQK: Tensor, present_BQK: Tensor, mask_BQ1: Tensor) -> Tensor:
    """Binary cross-entropy of a slot's presence score against whether a clue is labelled for it."""
    values = F.binary_cross_entropy_with_logits(scores_BQK.float(), present_BQK.float(), reduction="none")
    return sequence_mean(values, mask_BQ1.expand_as(values))
