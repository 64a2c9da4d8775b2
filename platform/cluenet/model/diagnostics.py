"""Where a model goes wrong between seeing and answering: the raw figures behind `biases` and `filter` of results.json.

`diagnose` returns for every question

    energy      {share, chance} of every stated clue: share of its attention inside the tokens that the boxes of its labelled
                clue touch, and the share of those tokens among all; None without attention or box. Stated and labelled clues
                are paired so that most words agree, then in order: one that says the wrong words keeps its place
    lens        {vocabulary, k, words}: its size, KS, and for every word of a labelled clue with boxes {role, word, tokens,
                inside, outside}: how many visual tokens its boxes touch; at each k the share of these and of all other tokens,
                after every decoder layer, whose logit lens has the word among its top k (outside: None where there are none)
    proximity   cosine of every option with the shown clues: mean static input embedding of the option's words, and of the
                clues' words but `when`. None for an open question, and where nothing is shown
    filter      {kind, delta, promised, utility, useful, unfiltered}: exact utility (nats) of every stated clue, and whether it
                is above delta, None where the answer is not known; the answer to all stated clues behind no filter;
                `promised`, see `ClueFilter.promised`. None where clues pass no filter

Energy: Wang et al. 2020 (Score-CAM, arXiv 1910.01279). Logit lens on visual tokens: Neo et al. (arXiv 2410.07149).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cluenet.model.counterfactuals import plain_words
from cluenet.model.sight import TOKENS_AT_ONCE
from cluenet.model.utilities import Utility, all_slots
from cluenet.model.vocabulary import ABSENT, NONE, box_weights
from cluenet.records import CONCEPT_ROLES, Clue, Example

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.evidence import Evidence
    from cluenet.model.pipeline import ClueNet, Look
    from cluenet.model.vlm import Grid, VisionLanguageModel

Record = dict[str, Any]
KS = (1, 5)
"""Top words of the logit lens that are looked at."""


def diagnose(model: ClueNet, batch: Batch, look: Look, *, utility: Utility, delta: float) -> list[Record]:
    """In the order of `batch.examples`. utility, delta: what makes a clue useful, as in `train.<stage>.filter_loss`."""
    with model.inference():
        own = model.own_evidence(batch, look)
        tops_BLNC = lens_tops(model, batch)
        worth = _worth(model, batch, look, own, utility, delta) if model.extracts else repeat(None, len(batch.examples))
        return [
            {
                "energy": energies(model, own, place),
                "lens": lens_words(model.vlm, place, tops_BLNC[place.b]),
                "proximity": proximity(model, own, place),
                "filter": record,
            }
            for place, record in zip(places(batch), worth, strict=True)
        ]


class Place(NamedTuple):
    """One question of a batch, with its labelled clues on the clip's clock."""

    b: int
    q: int
    example: Example
    grid: Grid
    clues: list[Clue]


def places(batch: Batch) -> Iterator[Place]:
    for b, clip in enumerate(batch.clips):
        for q, example in enumerate(clip):
            clues = [clue.shifted(-example.video.start_seconds) for clue in example.clues or ()]
            yield Place(b, q, example, batch.grids[b], clues)


def region(clue: Clue, grid: Grid) -> Tensor:
    """Bool [N]: visual tokens that the clue's boxes touch."""
    return box_weights(clue.boxes, grid) > 0


# ------------------------------------------------------------------------------------------------- perception


def energies(model: ClueNet, own: Evidence, place: Place) -> list[dict[str, float] | None]:
    slots = torch.nonzero(own.present_BQK[place.b, place.q])[:, 0].tolist()
    stated = own.ids_BQKW[place.b, place.q, slots].tolist()
    labelled = [model.collator.vocabulary.encode(clue, place.grid) for clue in place.clues] if slots else []
    found: list[dict[str, float] | None] = [None] * len(slots)
    if model.extracts and own.attention_BQKN is not None:
        for row, column in paired(stated, labelled):
            attention_N = own.attention_BQKN[place.b, place.q, slots[row], : place.grid.tokens]
            found[row] = energy(attention_N.cpu(), region(place.clues[column], place.grid))
    return found


def paired(stated: Sequence[Sequence[int]], labelled: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(stated clue, labelled clue) one to one: as many equal words as possible, then as many pairs in order."""
    if not stated or not labelled:
        return []
    alike = [[sum(a == b for a, b in zip(one, other)) for other in labelled] for one in stated]
    in_order = np.eye(len(stated), len(labelled)) / (len(stated) + 1)
    rows, columns = linear_sum_assignment(np.array(alike) + in_order, maximize=True)
    return list(zip(rows.tolist(), columns.tolist()))


def energy(attention_N: Tensor, region_N: Tensor) -> dict[str, float] | None:
    """{share of attention inside the region, share of all tokens that it has}; None without attention or region."""
    attention = attention_N.double()
    if not region_N.any() or not attention.sum() > 0:
        return None
    return {"share": float(attention[region_N].sum() / attention.sum()), "chance": float(region_N.double().mean())}


# -------------------------------------------------------------------------------------------------- cognition


def lens_tops(model: ClueNet, batch: Batch) -> list[Tensor | None]:
    """Of every clip [L, N, max(KS)]: `top_ids` after each layer. One more pass over the videos, where any clue has a box."""
    if not any(clue.boxes for example in batch.examples for clue in example.clues or ()):
        return [None] * len(batch.clips)
    layers = model.vlm.read_layers(batch.prefix, lambda states: top_ids(model.vlm, states))
    return list(torch.stack(layers, dim=1))


def top_ids(vlm: VisionLanguageModel, states_BND: Tensor) -> Tensor:
    """[B, N, max(KS)] most probable tokens of normalised states through the LM head, the first one first."""
    parts = [vlm.head(part).topk(max(KS)).indices for part in states_BND.flatten(0, 1).split(TOKENS_AT_ONCE)]
    return torch.cat(parts).view(*states_BND.shape[:2], -1).cpu()


def lens_words(vlm: VisionLanguageModel, place: Place, tops_LNC: Tensor | None) -> Record:
    words = [
        {"role": role, "word": word, "tokens": int(region_N.sum()), **named(hits_LNC, region_N)}
        for clue in place.clues
        if tops_LNC is not None and (region_N := region(clue, place.grid)).any()
        for role, word in _words(clue)
        if (word_id := vlm.word_id(word)) != vlm.tokenizer.unk_token_id
        for hits_LNC in [tops_LNC[:, : place.grid.tokens] == word_id]
    ]
    return {"vocabulary": len(vlm.embeddings_VD), "k": list(KS), "words": words}


def _words(clue: Clue) -> list[tuple[str | None, str]]:
    """(role, word) of a clue; role None where its source names none."""
    if clue.concepts:
        found = [(role, clue.concepts[role]) for role in CONCEPT_ROLES if role in clue.concepts]
    else:
        found = [(None, word) for word in plain_words(clue.text)]
    return [pair for pair in dict.fromkeys(found) if pair[1] not in (ABSENT, NONE)]


def named(hits_LNC: Tensor, region_N: Tensor) -> dict[str, list[list[float]] | None]:
    """{inside, outside} [len(KS), L]: share of tokens of the region and of all others with a hit among their first k."""
    among_KLN = torch.stack([hits_LNC[..., :k].any(-1) for k in KS]).double()
    inside, outside = (
        among_KLN[..., where].mean(-1).tolist() if where.any() else None for where in (region_N, ~region_N)
    )
    return {"inside": inside, "outside": outside}


# -------------------------------------------------------------------------------------------------- inductive


def proximity(model: ClueNet, own: Evidence, place: Place) -> list[float] | None:
    vocabulary, embeddings_VD = model.collator.vocabulary, model.vlm.embeddings_VD.float()
    shown = own.ids_BQKW[place.b, place.q][own.keep_BQK[place.b, place.q]]
    said = [word for word in shown[:, 1:].flatten().tolist() if word not in (vocabulary.none, vocabulary.absent)]
    options = [model.vlm.ids(f" {option}") for option in place.example.options]
    if not said or not options or not all(options):
        return None
    clues_D = embeddings_VD[said].mean(0)
    options_AD = torch.stack([embeddings_VD[ids].mean(0) for ids in options])
    found: list[float] = F.cosine_similarity(clues_D[None], options_AD, dim=-1).tolist()
    return found


# --------------------------------------------------------------------------------------------------- the filter


def _worth(model: ClueNet, batch: Batch, look: Look, own: Evidence, utility: Utility, delta: float) -> Iterator[Record]:
    silent = own.ids_BQKW.masked_fill(~own.present_BQK[..., None], model.collator.vocabulary.none)
    probe = model.probe(batch, look.prefix)  # of questions without a known answer it knows nothing: left out below
    found_BQK = probe.utilities(model.displayed(silent), all_slots(own.present_BQK), kind=utility)
    answers = model.predict_rows(batch, ("stated",), look=look)["stated"]
    for place, answer in zip(places(batch), answers, strict=True):
        worth_K = found_BQK[place.b, place.q][own.present_BQK[place.b, place.q]]
        known = place.example.answer is not None
        yield {
            "kind": utility, "delta": delta, "promised": model.filter.promised,
            "utility": worth_K.tolist() if known else None, "useful": (worth_K > delta).tolist() if known else None,
            "unfiltered": answer.prediction,
        }  # fmt: skip
