"""Where clues go wrong: seen in the wrong place, understood as the wrong word, not followed. `biases` of results.json.

perception  {pointing, energy_in_box}: {all, right, wrong, gap, chance} over stated clues. pointing: the peak of a clue's
            attention lies on a box of its question's labelled clues (Zhang et al. 2016, arXiv 1608.00507); energy_in_box: share
            of its attention inside the region of its labelled clue (Wang et al. 2020, arXiv 1910.01279). right, wrong: of
            questions answered so; gap = right - wrong; chance: a random token's, and even attention's
cognition   of every decoder layer and k {layer, k, rate, chance, tokens, elsewhere, by_role}, over words of labelled clues.
            rate: a token of the clue's region has the word among the k first of its logit lens (CCR@k); chance: so do k random
            words of the vocabulary; tokens: share of the region's tokens that have it; elsewhere: of all other tokens
proximity   {nearest_is_answer, nearest_is_right, chance}: share of questions whose option nearest to the shown clues, by the
            cosine of mean static input embeddings, is the model's answer, and the right one

They are made from samples.jsonl alone, whose `diagnostics` come from `cluenet.model.diagnostics`. Estimates are {value, low,
high, n}, intervals by video; chances are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from cluenet.metrics.faithfulness import Column, estimates
from cluenet.metrics.statistics import bootstrap, intervals, ratio
from cluenet.records import CONCEPT_ROLES

Samples: TypeAlias = Sequence[Mapping[str, Any]]
Pair: TypeAlias = tuple[float, float]
"""A value and what chance would give."""

NO_LABELS = "no labelled clue of this test set has a box"
NOT_SHOWN = "no question with options has a shown clue"
NO_ATTENTION = "no stated clue has both attention and a labelled clue with a box"


def biases(samples: Samples, *, resamples: int) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The block, None without anything to measure, and notes on what is missing from it.

    samples: lines of samples.jsonl. Raises KeyError for those of an evaluation without diagnostics.
    """
    parts = {name: measure(samples, resamples) for name, (measure, _) in _PARTS.items()}
    notes = {f"biases.{name}": _PARTS[name][1] for name, part in parts.items() if not part}
    return {name: part for name, part in parts.items() if part} or None, notes


def _videos(samples: Samples) -> list[str]:
    return [sample["video"] for sample in samples]


# ------------------------------------------------------------------------------------------------- perception


def _perception(samples: Samples, resamples: int) -> dict[str, Any]:
    found = {
        "pointing": [_pointed(sample) for sample in samples],
        "energy_in_box": [_energy(sample) for sample in samples],
    }
    return {name: _by_verdict(samples, pairs, resamples) for name, pairs in found.items() if any(pairs)}


def _pointed(sample: Mapping[str, Any]) -> list[Pair]:
    clues = [clue for clue in sample["clues"] if clue["pointing"] is not None]
    return [(float(clue["pointing"]), clue["pointing_chance"]) for clue in clues]


def _energy(sample: Mapping[str, Any]) -> list[Pair]:
    return [(one["share"], one["chance"]) for one in sample["diagnostics"]["energy"] if one is not None]


def _by_verdict(samples: Samples, pairs_N: Sequence[Sequence[Pair]], resamples: int) -> dict[str, Any]:
    tops_N = np.array([sum(value for value, _ in pairs) for pairs in pairs_N])
    counts_N = np.array([float(len(pairs)) for pairs in pairs_N])
    likely_N = [sum(chance for _, chance in pairs) for pairs in pairs_N]
    right_N, wrong_N = (np.array([sample["correct"] is verdict for sample in samples]) for verdict in (True, False))
    columns: dict[str, Column] = {
        "all": (tops_N.tolist(), counts_N.tolist()),
        "right": ((tops_N * right_N).tolist(), (counts_N * right_N).tolist()),
        "wrong": ((tops_N * wrong_N).tolist(), (counts_N * wrong_N).tolist()),
    }
    values_N4 = np.stack([tops_N * right_N, counts_N * right_N, tops_N * wrong_N, counts_N * wrong_N], axis=1)
    gap_31 = bootstrap(_videos(samples), values_N4, _gap, resamples=resamples)
    (gap,) = intervals(gap_31, [(counts_N * (right_N | wrong_N)).sum()])
    found = estimates(_videos(samples), columns, resamples=resamples)
    return {**found, "gap": gap.to_dict(), "chance": sum(likely_N) / counts_N.sum()}


def _gap(sums: np.ndarray) -> np.ndarray:
    """[..., 4] sums and counts, of the right and of the wrong -> [..., 1] difference of their means."""
    means = ratio(sums[..., 0::2], sums[..., 1::2])
    gap: np.ndarray = means[..., :1] - means[..., 1:]
    return gap


# -------------------------------------------------------------------------------------------------- cognition


def _cognition(samples: Samples, resamples: int) -> list[dict[str, Any]]:
    lenses = [sample["diagnostics"]["lens"] for sample in samples]
    words_N = [lens["words"] for lens in lenses]
    every = [word for words in words_N for word in words]
    if not every:
        return []
    size, ks = lenses[0]["vocabulary"], lenses[0]["k"]
    layers, roles = len(every[0]["inside"][0]), [r for r in CONCEPT_ROLES if any(word["role"] == r for word in every)]
    points = [(layer, place) for layer in range(layers) for place in range(len(ks))]
    columns = {
        f"{layer}/{place}/{name}": column
        for layer, place in points
        for name, column in _named(words_N, layer, place, roles).items()
    }
    found = estimates(_videos(samples), columns, resamples=resamples)
    return [
        {
            "layer": layer + 1, "k": ks[place], "chance": _likely(every, ks[place], size),
            **{name: found[f"{layer}/{place}/{name}"] for name in ("rate", "tokens", "elsewhere")},
            "by_role": {role: found[f"{layer}/{place}/{role}"] for role in roles},
        }
        for layer, place in points
    ]  # fmt: skip


def _named(words_N: Sequence[Samples], layer: int, place: int, roles: Sequence[str]) -> dict[str, Column]:
    def mean(values_N: list[list[float]]) -> Column:
        return [sum(values) for values in values_N], [float(len(values)) for values in values_N]

    def rate(role: str | None = None) -> Column:
        wanted = [[word for word in words if role in (None, word["role"])] for words in words_N]
        return mean([[float(word["inside"][place][layer] > 0) for word in words] for words in wanted])

    tokens, elsewhere = (
        mean([[word[where][place][layer] for word in words if word[where] is not None] for words in words_N])
        for where in ("inside", "outside")
    )
    return {"rate": rate(), "tokens": tokens, "elsewhere": elsewhere, **{role: rate(role) for role in roles}}


def _likely(words: Samples, k: int, vocabulary: int) -> float:
    """How often k different random words at each token of a region would have the word: 1 - (1 - k/V)^tokens, the mean."""
    return fmean(1 - (1 - min(1.0, k / vocabulary)) ** word["tokens"] for word in words)


# -------------------------------------------------------------------------------------------------- inductive


def _proximity(samples: Samples, resamples: int) -> dict[str, Any]:
    met = [sample for sample in samples if sample["diagnostics"]["proximity"] is not None]
    if not met:
        return {}
    cosines = [sample["diagnostics"]["proximity"] for sample in met]
    nearest = [row.index(max(row)) for row in cosines]
    ones = [1.0] * len(met)
    right = [
        None if sample["answer"] is None else float(place == sample["answer"]) for sample, place in zip(met, nearest)
    ]
    columns: dict[str, Column] = {
        "nearest_is_answer": ([float(one["prediction"] == place) for one, place in zip(met, nearest)], ones),
        "nearest_is_right": (right, ones),
    }
    return {
        **estimates(_videos(met), columns, resamples=resamples),
        "chance": fmean(1 / len(row) for row in cosines),
    }


_PARTS = {
    "perception": (_perception, NO_ATTENTION),
    "cognition": (_cognition, NO_LABELS),
    "proximity": (_proximity, NOT_SHOWN),
}


# ----------------------------------------------------------------------------------------------- for people

_LINES = (
    ("perception", "pointing", "all", "the peak of a clue's attention lies on a labelled box", "stated clues"),
    ("perception", "pointing", "gap", "the same, right answers against wrong ones", "points"),
    ("perception", "energy_in_box", "all", "attention of a clue inside the region of its labelled clue", "attention"),
    ("perception", "energy_in_box", "gap", "the same, right answers against wrong ones", "points"),
    ("proximity", "", "nearest_is_answer", "the option nearest to the shown clues is the model's answer", "questions"),
    ("proximity", "", "nearest_is_right", "the option nearest to the shown clues is the right one", "questions"),
)


def headlines(block: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], float | None]]:
    """(what it says, unit, estimate, chance) of what was measured, in order; chance None for a difference."""
    for part, measure, name, words, unit in _LINES:
        found = block.get(part, {})
        found = found.get(measure, {}) if measure else found
        if found and found[name]["value"] is not None:
            yield words, unit, found[name], None if name == "gap" else found["chance"]
