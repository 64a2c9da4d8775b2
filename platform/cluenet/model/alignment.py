"""What ties an answer to the clues it was given: alignment with the right option, and the clues of another video.

    L_alignment      = - log softmax_a( cos(c, o_a) / temperature ) [a*]         (InfoNCE, arXiv 1807.03748)
    L_counterfactual = max(0, margin - log p(a* | q, C) + log p(a* | q, C~))     (nats; p as in `utilities.gold_logprob`)

c is the mean state, after the answer pass, of the words of all clues that the reasoner reads, and o_a that of the words of
option a; a question's wrong options are its negatives. States and not embeddings: a clue word's state depends on the word's
input embedding, so the gradient reaches whatever made the clue (with `coupled`, the extractor), without asking the clue to be
the answer's word itself. C~ are the clues of another video of the micro-batch. They are right for their own video, so
nothing flows back into them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cluenet.model.answer_rows import OPTIONS_HEADING
from cluenet.model.clues import sequence_mean
from cluenet.model.packing import pick
from cluenet.model.prompts import letter
from cluenet.model.utilities import gold_logprob

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.evidence import Evidence
    from cluenet.model.pipeline import ClueNet
    from cluenet.model.vlm import Prefix


def alignment_loss(
    clues_BQD: Tensor, options_BQAD: Tensor, gold_BQ: Tensor, num_options_BQ: Tensor, mask_BQ: Tensor, *, temperature: float
) -> Tensor:  # fmt: skip
    """Cross-entropy of the right option among a question's own, by cosine similarity over `temperature`."""
    wide = torch.promote_types(clues_BQD.dtype, torch.float32)
    clues, options = (F.normalize(states.to(wide), dim=-1) for states in (clues_BQD, options_BQAD))
    scores_BQA = (clues[..., None, :] * options).sum(-1) / temperature
    columns = torch.arange(scores_BQA.shape[-1], device=scores_BQA.device)
    scores_BQA = scores_BQA.masked_fill(columns >= num_options_BQ[..., None].clamp(min=1), float("-inf"))
    logprob_BQ = scores_BQA.log_softmax(-1).gather(-1, gold_BQ[..., None])[..., 0]
    return sequence_mean(-logprob_BQ, mask_BQ)


def counterfactual_loss(own_BQ: Tensor, other_BQ: Tensor, mask_BQ: Tensor, *, margin: float) -> Tensor:
    """Hinge max(0, margin - own + other) of the right answer's log-probabilities (nats) with its own and other clues."""
    return sequence_mean((margin - own_BQ + other_BQ).clamp(min=0), mask_BQ)


# ------------------------------------------------------------------------------------------------------ alignment


def alignment_term(
    model: ClueNet, batch: Batch, read: Evidence, hidden_BLD: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """(loss, how many questions it teaches): those with options, a known answer and a clue. `hidden_BLD`: the answer pass."""
    labels, said_BQKW = batch.labels, _said(model, read)
    clues_BQD = _mean(pick(hidden_BLD, batch.answer.clue_index_BQKW).flatten(2, 3), said_BQKW.flatten(2))
    rows = option_columns(model, batch).to(hidden_BLD.device)
    options_BQAD = _option_states(hidden_BLD, rows, batch.valid_BQ.shape, most=max(2, int(labels.num_options_BQ.max())))
    mask_BQ = batch.valid_BQ & labels.answered_BQ & labels.num_options_BQ.gt(0) & said_BQKW.flatten(2).any(-1)
    loss = alignment_loss(
        clues_BQD, options_BQAD, labels.gold_BQ, labels.num_options_BQ, mask_BQ, temperature=temperature
    )
    return loss, mask_BQ.sum()


def _said(model: ClueNet, read: Evidence) -> Tensor:
    """Bool [B, Q, K, W]: the words of the clues that the reasoner reads."""
    return read.keep_BQK[..., None] & read.ids_BQKW.ne(model.collator.vocabulary.none)


def _mean(states_BQMD: Tensor, mask_BQM: Tensor) -> Tensor:
    """[B, Q, D] mean of the masked states; 0 without any."""
    mask = mask_BQM.to(states_BQMD.dtype)[..., None]
    return (states_BQMD * mask).sum(-2) / mask.sum(-2).clamp(min=1)


def _option_states(hidden_BLD: Tensor, rows_R4: Tensor, shape: torch.Size, *, most: int) -> Tensor:
    """[B, Q, A, D] mean state of every option's words."""
    b, q, option, column = rows_R4.unbind(-1)
    place, states = (b * shape[1] + q) * most + option, hidden_BLD[b, column]
    total = states.new_zeros(shape.numel() * most, states.shape[-1]).index_add(0, place, states)
    count = states.new_zeros(len(total)).index_add(0, place, states.new_ones(len(states)))
    return (total / count.clamp(min=1)[:, None]).view(*shape, most, -1)


def option_columns(model: ClueNet, batch: Batch) -> Tensor:
    """[R, 4] (b, q, option, column): where the words of options stand in the answer pass. With letters they stand in the
    prompt, after the clues; with likelihood scoring each is a branch of its own."""
    return _prompt_columns(model, batch) if model.letters else _branch_columns(batch)


def _prompt_columns(model: ClueNet, batch: Batch) -> Tensor:
    asked = [(b, q, e.options) for b, clip in enumerate(batch.clips) for q, e in enumerate(clip) if e.options]
    listed = [_listed(options) for *_, options in asked]
    if not asked:
        return torch.zeros(0, 4, dtype=torch.long)
    encoded = model.vlm.tokenizer([text for text, _ in listed], add_special_tokens=False, return_offsets_mapping=True)
    heading, last_clue_BQ = len(model.vlm.ids(OPTIONS_HEADING)), batch.answer.clue_index_BQKW[:, :, -1, -1].tolist()
    return torch.tensor([
        (b, q, option, last_clue_BQ[b][q] + 1 + heading + token)
        for (b, q, _), (_, spans), offsets in zip(asked, listed, encoded.offset_mapping)
        for option, token in _tokens_in(spans, offsets)
    ])  # fmt: skip


def _listed(options: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The options as prompts have them (`Collator`), and from which to which character each one's words are."""
    text, spans = "", []
    for index, option in enumerate(options):
        text += f"\n{letter(index)} "
        spans.append((len(text), len(text) + len(option)))
        text += option
    return text, spans


def _tokens_in(
    spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:  # fmt: skip
    """(span, token) of the tokens that have a character in a span."""
    for token, (first, end) in enumerate(offsets):
        for span, (start, stop) in enumerate(spans):
            if first < stop and end > start:
                yield span, token


def _branch_columns(batch: Batch) -> Tensor:
    """The branches of a question follow its common part, which ends where the answer is predicted, one after another."""
    rows = batch.answer.option_rows
    rows = rows[batch.labels.num_options_BQ[rows[:, 0], rows[:, 1]] > 0]
    question = rows[:, 0] * batch.valid_BQ.shape[1] + rows[:, 1]
    turn = torch.arange(len(rows), device=rows.device) - torch.searchsorted(question, question)
    columns = batch.answer.answer_index_BQ[rows[:, 0], rows[:, 1]] + 1 + turn
    return torch.cat([rows[:, :3], columns[:, None]], dim=-1)


# ------------------------------------------------------------------------------------------------- counterfactual


def counterfactual_term(
    model: ClueNet, batch: Batch, prefix: Prefix | None, read: Evidence, hidden_BLD: Tensor, *, margin: float, seed: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(loss, how many questions it teaches): those with a known answer that were given other words than their donor's.

    One more answer pass, made whatever the data. `hidden_BLD`: that with the clues of `read`.
    """
    device = hidden_BLD.device
    donor_BQ, found_B = (values.to(device) for values in donors(batch, seed=seed))
    ids_BQKW = read.ids_BQKW.masked_fill(~_said(model, read), model.collator.vocabulary.none)
    other_BQKWD, other_ids_BQKW = (values.flatten(0, 1)[donor_BQ] for values in (read.embeds_BQKWD.detach(), ids_BQKW))
    own_BQ = gold_logprob(model, batch, hidden_BLD)
    other_BQ = gold_logprob(model, batch, model.reason(batch, prefix, other_BQKWD))
    mask_BQ = (
        batch.valid_BQ & batch.labels.answered_BQ & found_B[:, None] & ids_BQKW.ne(other_ids_BQKW).flatten(2).any(-1)
    )
    return counterfactual_loss(own_BQ, other_BQ, mask_BQ, margin=margin), mask_BQ.sum()


def donors(batch: Batch, *, seed: int) -> tuple[Tensor, Tensor]:
    """([B, Q] b' x Q + q', bool [B]): the question whose clues each question is given, and whether there is one.

    Clips stand in a circle drawn from the seed; each takes the clues of the next clip of another video, question by question
    and from the first again where that clip has fewer.
    """
    clips, width = batch.clips, batch.valid_BQ.shape[1]
    order = random.Random(f"{seed}/donors").sample(range(len(clips)), len(clips))
    chosen = torch.zeros(batch.valid_BQ.shape, dtype=torch.long)
    found = torch.zeros(len(clips), dtype=torch.bool)
    for place, b in enumerate(order):
        circle = [*order[place + 1 :], *order[:place]]
        donor = next((o for o in circle if clips[o][0].video.path != clips[b][0].video.path), None)
        found[b] = donor is not None
        if donor is not None:
            chosen[b] = donor * width + torch.arange(width) % len(clips[donor])
    return chosen, found
