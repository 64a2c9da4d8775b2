"""What the decoder's layers say at the visual tokens of a clue, and everywhere else: the logit lens, read in words.

Neo et al. (arXiv 2410.07149): the states of visual tokens through the last norm and the LM head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cluenet.diagnose.looking import Seen
from cluenet.records import CONCEPT_ROLES, Clue, content_hash

TOP = 5
"""Words of a layer and region."""
EXAMPLES = 4

NO_BOXES = "no labelled clue of these questions has a box, so no region can be compared with the rest of the video"

Votes = list[Counter[str]]
"""By layer, how many visual tokens say each word first."""


def lens_block(
    seen: Sequence[Seen], *, word: Callable[[int], str], layers: int, ccr: Sequence[Mapping[str, Any]], seed: int
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """`lens` of diagnostics.json, and notes. ccr: `cognition` of `metrics.biases`, empty without boxes."""
    regions = [pair for one in seen for pair in _regions(one)]
    if not regions:
        return None, {"lens": NO_BOXES}
    inside, outside = (_sum(layers, (pair[place] for pair in _all_votes(regions, word))) for place in (0, 1))
    shown = [_example(one, number, word) for one, number in _chosen(regions, seed)]
    return {"layers": layers, "ccr": list(ccr), "words": table(inside, outside), "examples": shown}, {}


def _regions(one: Seen) -> list[tuple[Seen, int]]:
    """Of one question, the places of the labelled clues with boxes."""
    return [] if one.tops_LN is None else [(one, i) for i, region_N in enumerate(one.regions) if region_N.any()]


def _all_votes(regions: Sequence[tuple[Seen, int]], word: Callable[[int], str]) -> Iterator[tuple[Votes, Votes]]:
    for one, number in regions:
        assert one.tops_LN is not None
        region_N = one.regions[number]
        yield votes(one.tops_LN, region_N, word), votes(one.tops_LN, ~region_N, word)


def votes(tops_LN: np.ndarray, region_N: np.ndarray, word: Callable[[int], str]) -> Votes:
    """How many tokens of the region say each word first. tops_LN: word ids."""
    return [_counted(ids, word) for ids in tops_LN[:, region_N]]


def _counted(ids_N: np.ndarray, word: Callable[[int], str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for token, count in zip(*np.unique(ids_N, return_counts=True)):
        found[word(int(token))] += int(count)  # several tokens may look alike
    return found


def _sum(layers: int, every: Iterator[Votes]) -> Votes:
    total: Votes = [Counter() for _ in range(layers)]
    for found in every:
        for mine, theirs in zip(total, found, strict=True):
            mine.update(theirs)
    return total


def table(inside: Votes, outside: Votes) -> list[dict[str, Any]]:
    """[{layer, inside, outside}], each [[word, share of the region's tokens]], the TOP most frequent."""
    return [
        {"layer": layer, "inside": _shares(mine), "outside": _shares(theirs)}
        for layer, (mine, theirs) in enumerate(zip(inside, outside, strict=True), start=1)
    ]


def _shares(counts: Counter[str]) -> list[list[Any]]:
    total = counts.total()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [[word, count / total] for word, count in ordered[:TOP]]


def _chosen(regions: Sequence[tuple[Seen, int]], seed: int) -> list[tuple[Seen, int]]:
    """EXAMPLES of different clips, in the order of a hash; right and wrong answers in turn as long as there are both."""
    ordered = sorted(regions, key=lambda pair: content_hash(seed, pair[0].sample["id"], pair[1]))
    clips = {one.sample["clip"]: (one, number) for one, number in reversed(ordered)}
    left = [clips[clip] for clip in dict.fromkeys(one.sample["clip"] for one, _ in ordered)]
    right, others = ([pair for pair in left if (pair[0].sample["correct"] is True) is kind] for kind in (True, False))
    count = min(EXAMPLES, len(left))
    num_right = min(len(right), max(EXAMPLES // 2, count - len(others)))
    return [*right[:num_right], *others[: count - num_right]]


def _example(one: Seen, number: int, word: Callable[[int], str]) -> dict[str, Any]:
    assert one.tops_LN is not None
    region_N, clue = one.regions[number], one.clues[number]
    layers = table(votes(one.tops_LN, region_N, word), votes(one.tops_LN, ~region_N, word))
    return {"question": one.sample["id"], "clip": one.sample["clip"], "correct": one.sample["correct"], "clue": clue.text,
            "said": _words(clue), "layers": layers}  # fmt: skip


def _words(clue: Clue) -> list[str]:
    if clue.concepts:
        return list(dict.fromkeys(clue.concepts[role] for role in CONCEPT_ROLES if role in clue.concepts))
    return list(dict.fromkeys(clue.text.split()))
