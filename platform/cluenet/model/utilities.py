"""What a clue is worth to the right answer, and how the filter's gate learns it.

The utility of clue i among the clues C of a question with right answer a*, in nats:

    leave-one-out   log p(a* | q, C) - log p(a* | q, C without i)
    add-one         log p(a* | q, {i}) - log p(a* | q, {})
    mean            of the two: leave-one-out alone is zero for clues that say the same

where p is normalised over the question's options; for an open question it is the mean log-probability of the reference's
tokens. With `generate_chain` the chain before the answer is written anew for every set of clues; in training, where it is the
labelled chain r, which gives the answer away, p(a* | ..) is replaced by p(r, a* | ..). Utilities carry no gradient, and the number of reasoning passes depends on settings alone, never on the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.config.train import FilterLoss
from cluenet.errors import CluenetError
from cluenet.model.chains import chain_logprob
from cluenet.model.clues import group_mean
from cluenet.model.losses import budget_loss, gate_loss, ranking_loss

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.evidence import Evidence
    from cluenet.model.pipeline import ClueNet, Look
    from cluenet.model.vlm import Prefix

Utility: TypeAlias = Literal["leave_one_out", "add_one", "mean"]


@dataclass(frozen=True)
class Probe:
    """A reasoner that is asked again and again with other clues in its slots."""

    score: Callable[[Tensor], Tensor]  # clues [B, Q, K, W, D] -> log-probability of the right answers [B, Q]
    empty_BQKWD: Tensor  # embeddings of slots that say nothing

    @torch.no_grad()
    def utilities(
        self, words_BQKWD: Tensor, slots_BQM: Tensor, *, kind: Utility, full_BQ: Tensor | None = None
    ) -> Tensor:
        """[B, Q, M] utilities of the clues in `slots_BQM`. `full_BQ`: the score of all clues, where it is known already.

        Passes of the reasoner: M for leave-one-out (M + 1 without `full_BQ`), M + 1 for add-one, the sum for the mean.
        """
        parts = []
        if kind != "add_one":
            full = self.score(words_BQKWD) if full_BQ is None else full_BQ
            parts.append(full[..., None] - self._scores(words_BQKWD, slots_BQM, alone=False))
        if kind != "leave_one_out":
            nothing = self.score(self.empty_BQKWD)
            parts.append(self._scores(words_BQKWD, slots_BQM, alone=True) - nothing[..., None])
        return torch.stack(parts).mean(0)

    def _scores(self, words_BQKWD: Tensor, slots_BQM: Tensor, *, alone: bool) -> Tensor:
        """[B, Q, M] scores with each slot `alone`, or with all but it."""
        chosen_BQMK = F.one_hot(slots_BQM, words_BQKWD.shape[2]).bool()
        shown = (chosen_BQMK if alone else ~chosen_BQMK)[..., None, None].unbind(2)
        return torch.stack([self.score(torch.where(one, words_BQKWD, self.empty_BQKWD)) for one in shown], dim=-1)


def all_slots(present_BQK: Tensor) -> Tensor:
    """[B, Q, K] every slot, for exact utilities."""
    return torch.arange(present_BQK.shape[-1], device=present_BQK.device).expand(present_BQK.shape)


def drawn_slots(present_BQK: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[B, Q, min(count, K)] different slots at random, those with a clue first."""
    draws = torch.rand(present_BQK.shape, generator=generator).to(present_BQK.device)
    return draws.masked_fill(~present_BQK, 2.0).argsort(dim=-1)[..., :count]


def gold_logprob(model: ClueNet, batch: Batch, hidden_BLD: Tensor) -> Tensor:
    """[B, Q] log-probability of the right answer: among the options, or per token of an open question's reference; with
    `generate_chain`, of the labelled chain before it too, where one is taught."""
    labels = batch.labels
    chosen = model.option_logprobs(batch, hidden_BLD).gather(-1, labels.gold_BQ[..., None])[..., 0]
    answer = torch.where(labels.num_options_BQ > 0, chosen, _reference_logprob(model, batch, hidden_BLD))
    return answer + chain_logprob(model, batch, hidden_BLD) if model.reasoner.config.generate_chain else answer


def _reference_logprob(model: ClueNet, batch: Batch, hidden_BLD: Tensor) -> Tensor:
    """[B, Q] mean log-probability of the reference's tokens; 0 for questions with options or without a reference."""
    rows, (b, q) = batch.answer.option_rows, batch.valid_BQ.shape
    rows = rows[batch.labels.num_options_BQ[rows[:, 0], rows[:, 1]] == 0]
    logprobs = model.vlm.head(hidden_BLD[rows[:, 0], rows[:, 3]]).float().log_softmax(-1)
    values = logprobs.gather(-1, rows[:, 4:5])[:, 0]
    return group_mean(values, rows[:, 0] * q + rows[:, 1], b * q).view(b, q)


@torch.no_grad()
def exact_utilities(
    model: ClueNet,
    batch: Batch,
    prefix: Prefix | None,
    ids_BQKW: Tensor,
    present_BQK: Tensor,
    *,
    kind: Utility = "mean",
) -> Tensor:
    """[B, Q, K] utilities of all stated clues (`ids`, where `present`), those of empty slots being 0.

    Raises CluenetError for a question whose answer is not known.
    """
    _need_answers(model, batch)
    none = model.collator.vocabulary.none
    words = model.displayed(ids_BQKW.masked_fill(~present_BQK[..., None], none))
    found = model.probe(batch, prefix).utilities(words, all_slots(present_BQK), kind=kind)
    return found.masked_fill(~present_BQK, 0.0)


def _need_answers(model: ClueNet, batch: Batch) -> None:
    unknown = next((example for example in batch.examples if example.answer is None), None)
    if unknown is not None:
        raise CluenetError(
            f"question {unknown.id!r}: what a clue is worth can only be measured where the right answer is known, and here "
            f"it is not.{_UPPER_BOUND.format(model.filter.name) if model.filter.sees_answer else ''}"
        )


_UPPER_BOUND = (
    " The model's filter {!r} sees it: it is an upper bound for evaluation on data with answers. To ask questions, train with "
    "a clue filter that does not."
)


# ------------------------------------------------------------------------------------------------ teaching the gate


def filter_term(
    model: ClueNet, batch: Batch, look: Look, evidence: Evidence, hidden_BLD: Tensor, *, settings: FilterLoss, seed: int
) -> tuple[Tensor, Tensor]:
    """(loss of the filter's gate, how many clues teach it). `hidden_BLD`: the answer pass with all clues of `evidence`.

    The gate is a side head: it reads its own, detached pool of clues, and what it says does not touch the answer.
    """
    if settings.source == "offline":
        return _recorded_term(model, batch, look, settings)
    generator = torch.Generator().manual_seed(seed)
    slots = drawn_slots(evidence.present_BQK, settings.measured, generator)
    with torch.no_grad():
        full = gold_logprob(model, batch, hidden_BLD)
        found = model.probe(batch, look.prefix).utilities(
            evidence.embeds_BQKWD, slots, kind=settings.utility, full_BQ=full
        )
        utility = torch.zeros_like(evidence.present_BQK, dtype=found.dtype).scatter(-1, slots, found)
        measured = torch.zeros_like(evidence.present_BQK).scatter(-1, slots, True) & evidence.present_BQK
        ids, added = _pool(model, batch, evidence, settings.distractors, generator)
    known = (batch.labels.answered_BQ & batch.valid_BQ)[..., None]
    taught = (measured & known) | added
    logits = model.gate_logits(look, ids)
    present = (evidence.present_BQK | added) & batch.valid_BQ[..., None]
    return gate_term(logits, utility.masked_fill(added, 0.0), taught, present, settings), taught.sum()


def _recorded_term(model: ClueNet, batch: Batch, look: Look, settings: FilterLoss) -> tuple[Tensor, Tensor]:
    """The same on clues whose utilities are recorded, without a reasoning pass. Stem and confidence are today's model's."""
    pool = batch.recorded
    if pool is None:
        raise CluenetError("filter_loss.source is offline, and no utilities were recorded for these questions.")
    logits = model.gate_logits(look, pool.ids_BQKW)
    return gate_term(logits, pool.utility_BQK, pool.pool_BQK, pool.pool_BQK, settings), pool.pool_BQK.sum()


def _pool(
    model: ClueNet, batch: Batch, evidence: Evidence, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Words that the gate is taught on: the stated clues', and distractors' in some empty slots, whose places are returned too."""
    none, present = model.collator.vocabulary.none, evidence.present_BQK
    stated = evidence.ids_BQKW.masked_fill(~present[..., None], none)
    return distractors(batch, stated, present, none=none, share=share, generator=generator)


def gate_term(
    logits_BQK: Tensor, utility_BQK: Tensor, measured_BQK: Tensor, pool_BQK: Tensor, settings: FilterLoss
) -> Tensor:
    """L_filter = BCE + ranking x hinge over the clues with a known utility, + budget x excess over all clues of the pool."""
    wide = torch.promote_types(logits_BQK.dtype, torch.float32)
    logits = logits_BQK.to(wide)
    gate, delta = logits.sigmoid(), settings.delta
    loss = gate_loss(logits, utility_BQK, measured_BQK, delta=delta, temperature=settings.temperature)
    if settings.ranking:
        hinge = ranking_loss(gate, utility_BQK, measured_BQK, margin=settings.margin, delta=delta)
        loss = loss + settings.ranking * hinge
    if settings.budget:
        loss = loss + settings.budget * budget_loss(gate, pool_BQK, share=settings.budget_share)
    return loss


def distractors(
    batch: Batch, ids_BQKW: Tensor, present_BQK: Tensor, *, none: int, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(ids [B, Q, K, W], bool [B, Q, K]): the clues, with true but useless ones in a `share` of empty slots, and where.

    A question's distractors are labelled clues of other questions about its clip that are neither labelled nor stated for
    itself; each is taken once. Their utility is 0 by definition, so the reasoner never reads them. Questions without labels
    or without a stated clue get none.
    """
    clues_BCW, allowed_BQC = _candidates(batch, ids_BQKW, none)
    order = torch.rand(allowed_BQC.shape, generator=generator).to(ids_BQKW.device).masked_fill(~allowed_BQC, -1.0)
    filled = torch.rand(present_BQK.shape, generator=generator).to(ids_BQKW.device) < share
    wanted = filled & ~present_BQK & present_BQK.any(-1, keepdim=True)
    turn = (wanted.cumsum(-1) - 1).clamp(0, allowed_BQC.shape[-1] - 1)  # the first slot to fill gets the first drawn
    score, index = (value.gather(-1, turn) for value in order.sort(dim=-1, descending=True))
    where = wanted & (score >= 0)
    rows = torch.arange(len(clues_BCW), device=ids_BQKW.device)[:, None, None]
    return torch.where(where[..., None], clues_BCW[rows, index], ids_BQKW), where


def _candidates(batch: Batch, ids_BQKW: Tensor, none: int) -> tuple[Tensor, Tensor]:
    """All labelled clues of a clip [B, C, W], and which of them may distract which of its questions [B, Q, C]."""
    truth_BQKW, known_BQ = batch.labels.words_BQKW, batch.labels.labelled_BQ & batch.valid_BQ
    questions, slots = truth_BQKW.shape[1:3]
    clues_BCW = truth_BQKW.flatten(1, 2)
    says_BC = (truth_BQKW.ne(none).any(-1) & known_BQ[..., None]).flatten(1)
    same = torch.eye(questions, dtype=torch.bool, device=ids_BQKW.device).repeat_interleave(slots, dim=1)
    own_BQKW = torch.cat([truth_BQKW, ids_BQKW], dim=2)
    repeated_BQC = (own_BQKW[:, :, :, None] == clues_BCW[:, None, None]).all(-1).any(2)
    return clues_BCW, says_BC[:, None] & ~same & ~repeated_BQC & known_BQ[..., None]
