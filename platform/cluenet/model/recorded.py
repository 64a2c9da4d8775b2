"""What the clues of a frozen model are worth, measured once for all of stage 2 (`filter_loss.source: offline`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluenet.config.train import FilterLoss
from cluenet.model import evidence
from cluenet.model.packing import Movable
from cluenet.model.utilities import distractors, exact_utilities

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet


@dataclass
class Recorded(Movable):
    """The pool of clues that the gate is taught on: a model's own, and distractors in some of its empty slots."""

    ids_BQKW: Tensor  # words, `none` in slots that say nothing
    pool_BQK: Tensor  # bool: which slots say something
    distractor_BQK: Tensor  # bool
    utility_BQK: Tensor  # nats; 0 by definition for distractors, and in slots that say nothing


def measure(model: ClueNet, batch: Batch, settings: FilterLoss, *, seed: int) -> Recorded:
    """Every stated clue, before the filter, with its exact utility to this model, and the distractors that `seed` draws.

    Raises CluenetError for a question whose answer is not known.
    """
    none, generator = model.collator.vocabulary.none, torch.Generator().manual_seed(seed)
    with model.inference():
        look = model.see(batch)
        stated = evidence.unfiltered(model, look)
        present = stated.present_BQK & batch.valid_BQ[..., None]
        ids = stated.ids_BQKW.masked_fill(~present[..., None], none)
        utility = exact_utilities(model, batch, look.prefix, ids, present, kind=settings.utility)
        pool, added = distractors(batch, ids, present, none=none, share=settings.distractors, generator=generator)
    return Recorded(pool, present | added, added, utility)
