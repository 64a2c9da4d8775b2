"""What a model's answers do when its clues are changed, on one look at the videos: the raw figures behind faithfulness.

`intervene` returns for every question with options (None for the others), with â for the answer to the model's own clues C:

    importance  of every shown clue, most important first, as `order` names them (places among the stated clues): the filter's
                gate, or without one what leaving the clue out costs, p(â|C) - p(â|C without it)
    deletion    p(â) with the 0, 1, .. k most important of the k shown clues left out
    insertion   p(â) with the 0, 1, .. k most important ones alone
    random      p(â) with 0, 1, .. k clues alone, the mean over random ones
    swap        {donor, prediction, target}: with the clues of another video's question; see `counterfactuals.Swap`
    edit        {names, prediction, target}: with words exchanged in its clues; see `counterfactuals.Exchange`
    noise       {source, words, replaces, after, through, kept, unfiltered}: predictions with a clue of another video put behind
                the filter, and offered to it; whether the filter kept it; prediction from it and all stated clues behind no
                filter; see `counterfactuals.Noise`
    clue_only   prediction from C alone, the video hidden
    frames_only prediction from the video alone
    text_only   prediction from neither

`swap`, `edit` and `noise` are None where nothing fits. What makes no sense for a model is left out; `inapplicable` says why.
A hidden video leaves what stands in the prompt before the first visual token: what comes after has seen the video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from math import exp
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cluenet.model import counterfactuals as cf
from cluenet.model.counterfactuals import Asked

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet, Look
    from cluenet.model.vlm import Prefix

Record = dict[str, Any]
Kept = frozenset[int]

NO_CLUES = "the model reads no clues"
NO_VIDEO = "the reasoner sees no video"
UNFILTERED = "the model's clues come from the labels and pass no filter"


def inapplicable(model: ClueNet) -> dict[str, str]:
    """Interventions that make no sense for a model, and why."""
    if not model.slots:
        return dict.fromkeys(("curves", "swap", "edit", "noise", "clue_only"), NO_CLUES)
    blind = (
        {}
        if model.reasoner.sees_video
        else {"frames_only": NO_VIDEO, "clue_only": f"{NO_VIDEO}, so its own answers are"}
    )
    return blind if model.extracts else {**blind, "noise.through": UNFILTERED}


def intervene(model: ClueNet, batch: Batch, look: Look, *, seed: int = 0) -> list[Record | None]:
    """In the order of `batch.examples`."""
    places = [(b, q) for b, clip in enumerate(batch.clips) for q, example in enumerate(clip) if example.options]
    with model.inference():
        records = dict(zip(places, _Interventions(model, batch, look, places, seed).records()))
    return [records.get((b, q)) for b, clip in enumerate(batch.clips) for q in range(len(clip))]


class _Interventions:
    """Interventions on one batch. A list over questions with options goes with `places`, their (b, q)."""

    def __init__(self, model: ClueNet, batch: Batch, look: Look, places: Sequence[tuple[int, int]], seed: int):
        self.model, self.batch, self.look, self.places, self.seed = model, batch, look, places, seed
        self.own = model.own_evidence(batch, look)
        self.silence = model.displayed(torch.full_like(self.own.ids_BQKW, model.collator.vocabulary.none))
        self.logprobs = self._logprobs(self.own.embeds_BQKWD)
        self.predictions = [_best(row) for row in self.logprobs]
        self.asked = [self._asked(place, answer) for place, answer in zip(places, self.predictions)]

    def records(self) -> list[Record]:
        missing, records = inapplicable(self.model), [Record() for _ in self.places]
        for name, measure in {
            "curves": self._curves, "swap": self._swap, "edit": self._edit, "noise": self._noise, "inputs": self._inputs
        }.items():  # fmt: skip
            if name not in missing:
                for record, found in zip(records, measure()):
                    record.update(found)
        return [{name: value for name, value in record.items() if name not in missing} for record in records]

    # ------------------------------------------------------------------------------------ reading the model
    def _asked(self, place: tuple[int, int], prediction: int) -> Asked:
        b, q = place
        words, present, keep = (
            each[b, q].tolist() for each in (self.own.ids_BQKW, self.own.present_BQK, self.own.keep_BQK)
        )
        stated = {slot: tuple(words[slot]) for slot in range(len(words)) if present[slot]}
        shown = {slot: clue for slot, clue in stated.items() if keep[slot]}
        return Asked(self.batch.clips[b][q], stated, shown, prediction)

    def _logprobs(self, clues_BQKWD: Tensor, *, hidden: bool = False) -> list[list[float]]:
        """Of the options of every question. `hidden`: the video is."""
        prefix = without_video(self.look[0], self.batch) if hidden else self.look[0]
        logprobs = self.model.logprobs_given(self.batch, prefix, clues_BQKWD)
        return [logprobs[b, q, : len(self.batch.clips[b][q].options)].tolist() for b, q in self.places]

    def _predictions(self, clues_BQKWD: Tensor, *, hidden: bool = False) -> list[int]:
        return [_best(row) for row in self._logprobs(clues_BQKWD, hidden=hidden)]

    def _shows(self, clues: Sequence[Mapping[int, Sequence[int]] | None]) -> Tensor:
        """[B, Q, K, W, D] of words by slot, the other slots silent."""
        ids = torch.full_like(self.own.ids_BQKW, self.model.collator.vocabulary.none)
        for (b, q), words in zip(self.places, clues):
            for slot, clue in (words or {}).items():
                ids[b, q, slot] = torch.tensor(clue, device=ids.device)
        return self.model.displayed(ids)

    # --------------------------------------------------------------------------------------- clues left out
    def _curves(self) -> list[Record]:
        slots = [tuple(one.shown) for one in self.asked]
        known = [{frozenset(of): exp(max(row))} for of, row in zip(slots, self.logprobs)]
        if self.own.gate_BQK is None:
            self._fill(known, [[frozenset(of) - {slot} for slot in of] for of in slots])
        orders = [self._order(*item) for item in zip(self.places, slots, known)]
        random = [
            [cf.subsets(of, size, seed=self.seed, key=one.example.id) for size in range(len(of) + 1)]
            for one, of in zip(self.asked, slots)
        ]
        self._fill(
            known,
            [[*_heads(order), *_tails(order), *chain.from_iterable(sets)] for (order, _), sets in zip(orders, random)],
        )
        return [_curve(one, *item) for one, *item in zip(self.asked, orders, random, known)]

    def _fill(self, known: list[dict[Kept, float]], wanted: Sequence[Sequence[Kept]]) -> None:
        """Look up p(â) with these clues shown alone: as many answer passes as the question with most of them needs."""
        missing = [[kept for kept in dict.fromkeys(sets) if kept not in have] for sets, have in zip(wanted, known)]
        for turn in range(max(map(len, missing), default=0)):
            here = [sets[turn] if turn < len(sets) else None for sets in missing]
            for found, kept, logprobs, one in zip(known, here, self._logprobs(self._keeping(here)), self.asked):
                if kept is not None:
                    found[kept] = exp(logprobs[one.prediction])

    def _keeping(self, kept: Sequence[Kept | None]) -> Tensor:
        mask = self.own.keep_BQK.clone()
        for (b, q), slots in zip(self.places, kept):
            if slots is not None:
                mask[b, q] &= torch.tensor([slot in slots for slot in range(mask.shape[-1])], device=mask.device)
        return torch.where(mask[..., None, None], self.own.embeds_BQKWD, self.silence)

    def _order(
        self, place: tuple[int, int], slots: Sequence[int], known: Mapping[Kept, float]
    ) -> tuple[list[int], list[float]]:
        """Slots by falling importance, the earlier first among equals, and their importances."""
        whole = frozenset(slots)
        gates = None if self.own.gate_BQK is None else self.own.gate_BQK[place].tolist()
        worth = {slot: known[whole] - known[whole - {slot}] if gates is None else gates[slot] for slot in slots}
        order = sorted(slots, key=lambda slot: (-worth[slot], slot))
        return order, [worth[slot] for slot in order]

    # -------------------------------------------------------------------------------------- other clues
    def _swap(self) -> list[Record]:
        chosen = cf.swaps(self.asked, seed=self.seed)
        predictions = self._predictions(self._shows([swap and swap.donor.shown for swap in chosen]))
        return [
            {"swap": swap and {"donor": swap.donor.example.id, "prediction": prediction, "target": swap.target}}
            for swap, prediction in zip(chosen, predictions)
        ]

    def _edit(self) -> list[Record]:
        word_id = self._word_ids()
        chosen = [cf.exchange(one, word_id, seed=self.seed) for one in self.asked]
        predictions = self._predictions(self._shows([edit and edit.clues for edit in chosen]))
        return [
            {
                "edit": edit
                and {"names": [list(pair) for pair in edit.names], "prediction": prediction, "target": edit.target}
            }
            for edit, prediction in zip(chosen, predictions)
        ]

    def _word_ids(self) -> Callable[[str], int | None]:
        """Ids of words, None for one that the tokenizer does not know."""
        unknown = self.model.vlm.tokenizer.unk_token_id

        @cache
        def word_id(word: str) -> int | None:
            found = self.model.vlm.word_id(word)
            return None if found == unknown else found

        return word_id

    def _noise(self) -> list[Record]:
        chosen = cf.noises(self.asked, self.model.slots, seed=self.seed)
        after = self._predictions(
            self._shows([noise and {**one.shown, noise.slot: noise.words} for one, noise in zip(self.asked, chosen)])
        )
        through, kept, unfiltered = self._offered(chosen) if self.model.extracts else [[None] * len(chosen)] * 3
        words = self.model.collator.vocabulary.decode
        return [
            {"noise": noise and {
                "source": noise.source.example.id, "words": list(words(noise.words)), "replaces": noise.replaces,
                "after": a, "through": t, "kept": k, "unfiltered": u,
            }}
            for noise, a, t, k, u in zip(chosen, after, through, kept, unfiltered)
        ]  # fmt: skip

    def _offered(self, chosen: Sequence[cf.Noise | None]) -> tuple[list[int], list[bool | None], list[int]]:
        """Predictions when the filter is offered the noise among the stated clues, whether it kept it, and predictions when
        no filter stands before them."""
        ids, present = self.own.ids_BQKW.clone(), self.own.present_BQK.clone()
        for (b, q), noise in zip(self.places, chosen):
            if noise is not None:
                ids[b, q, noise.slot] = torch.tensor(noise.words, device=ids.device)
                present[b, q, noise.slot] = True
        offered = self.model.refiltered(self.batch, ids, present, self.look)
        everything = torch.where(present[..., None, None], self.model.displayed(ids), self.silence)
        kept = [
            None if noise is None else bool(offered.keep_BQK[b, q, noise.slot])
            for (b, q), noise in zip(self.places, chosen)
        ]
        return self._predictions(offered.embeds_BQKWD), kept, self._predictions(everything)

    # ------------------------------------------------------------------------------------- inputs taken away
    def _inputs(self) -> list[Record]:
        without_clues = self._predictions(self.silence)
        found = {"clue_only": self.predictions, "frames_only": without_clues, "text_only": without_clues}
        if self.model.reasoner.sees_video:
            found["clue_only"] = self._predictions(self.own.embeds_BQKWD, hidden=True)
            found["text_only"] = self._predictions(self.silence, hidden=True)
        return [dict(zip(found, values)) for values in zip(*found.values())]


def _best(logprobs: Sequence[float]) -> int:
    return logprobs.index(max(logprobs))


def _heads(order: Sequence[int]) -> list[Kept]:
    return [frozenset(order[:count]) for count in range(len(order) + 1)]


def _tails(order: Sequence[int]) -> list[Kept]:
    return [frozenset(order[count:]) for count in range(len(order) + 1)]


def _curve(
    one: Asked, ordered: tuple[list[int], list[float]], random: Sequence[Sequence[Kept]], known: Mapping[Kept, float]
) -> Record:
    order, worth = ordered
    place = {slot: place for place, slot in enumerate(one.stated)}
    return {
        "order": [place[slot] for slot in order],
        "importance": worth,
        "deletion": [known[kept] for kept in _tails(order)],
        "insertion": [known[kept] for kept in _heads(order)],
        "random": [sum(known[kept] for kept in sets) / len(sets) for sets in random],
    }


def without_video(prefix: Prefix | None, batch: Batch) -> Prefix | None:
    """The prompt up to the first visual token."""
    if prefix is None:
        return None
    columns = torch.arange(prefix.valid_BP.shape[1], device=prefix.valid_BP.device)
    return replace(prefix, valid_BP=prefix.valid_BP & (columns < batch.prefix.visual_index_BN[:, :1]))
