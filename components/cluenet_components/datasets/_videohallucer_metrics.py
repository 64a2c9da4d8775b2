"""VideoHallucer's accuracies of pairs, its two measures of bias, and its result files (arXiv 2406.16338, section 4).

The bias is written anew from its definition: `evaluation_bias.py` of the repository looks for "no" in the hallucinated
reply where it should look in the basic one, and for "yes" the other way round.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from cluenet.verdicts import MeanOf, Measure, Share, Verdict
from cluenet_components.datasets._yes_no import OPTIONS, says_yes

Category = Literal[
    "object_relation", "temporal", "semantic_detail", "external_factual", "external_nonfactual", "interaction"
]
ALL_CATEGORIES: tuple[Category, ...] = get_args(Category)
CATEGORIES = ALL_CATEGORIES[:-1]
"""Those of the paper; overall measures leave interaction out."""

EXTERNAL = ("external_factual", "external_nonfactual")

SIDES = ("basic", "hallucination")
ACCURACIES = {"accuracy": SIDES, "basic_accuracy": SIDES[:1], "halluc_accuracy": SIDES[1:]}
"""The repository's name -> sides of a pair that must be right."""

FILES = {
    "object_relation": "obj_rel", "temporal": "temporal", "semantic_detail": "semantic", "external_factual": "fact",
    "external_nonfactual": "nonfact", "interaction": "interaction",
}  # fmt: skip
"""What the repository calls a category in its result files."""

NO_REPLY = "none"
"""Neither yes nor no, so that every version of the repository's scripts counts it as wrong."""

Pair = dict[str, Verdict]
"""By side."""


def measures(verdicts: Sequence[Verdict]) -> list[Measure]:
    """Accuracies as means over the five categories, the bias over all their questions, then each category's accuracies.

    yes_difference: (answers yes - questions whose answer is yes) / (2 x the latter). false_positive_ratio: share of wrong
    answers that are a wrong yes. A question without a reply is wrong and no yes. A pair whose other question is not among
    `verdicts` counts in no `accuracy`.
    """
    categories = _by_category(verdicts)
    counted = [category for category in CATEGORIES if category in categories]
    means = [MeanOf(name, tuple(f"{category}/{name}" for category in counted)) for name in ACCURACIES if counted]
    bias = _bias([pair for category in counted for pair in categories[category]])
    shares = [_share(category, name, pairs) for category, pairs in categories.items() for name in ACCURACIES]
    return [*means, *bias, *shares]


def result_files(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """`<category>_cluenet.json`: its records with a `predict` on each side, in the order of the file."""
    return {
        f"{FILES[category]}_cluenet.json": json.dumps([_record(pair) for pair in pairs], indent=4, ensure_ascii=False)
        for category, pairs in _by_category(verdicts).items()
    }


def _by_category(verdicts: Sequence[Verdict]) -> dict[str, list[Pair]]:
    """Categories in the paper's order, pairs in that of their files."""
    pairs: dict[str, dict[str, Pair]] = {category: defaultdict(dict) for category in FILES}
    for one in sorted(verdicts, key=lambda one: one.id):
        pairs[str(one.type)][one.meta["pair"]][one.meta["side"]] = one
    return {category: list(found.values()) for category, found in pairs.items() if found}


def _share(category: str, name: str, pairs: Sequence[Pair]) -> Share:
    sides = ACCURACIES[name]
    there = [pair for pair in pairs if all(side in pair for side in sides)]
    rights = [float(all(pair[side].correct for side in sides)) for pair in there]
    return Share(f"{category}/{name}", [_video(pair) for pair in there], rights)


def _bias(pairs: Sequence[Pair]) -> list[Share]:
    asked = [one for pair in pairs for one in pair.values()]
    videos = [_video(pair) for pair in pairs for _ in pair]
    more_yes = [float(says_yes(one)) - one.meta["is_yes"] for one in asked]
    false_yes = [float(says_yes(one) and not one.correct) for one in asked]
    return [
        Share("yes_difference", videos, more_yes, [2.0 * one.meta["is_yes"] for one in asked]),
        Share("false_positive_ratio", videos, false_yes, [float(not one.correct) for one in asked]),
    ]


def _video(pair: Pair) -> str:
    """The name under which a pair is resampled: both external categories show the same videos, and the two videos of a
    semantic_detail pair count as one."""
    one = pair[next(side for side in SIDES if side in pair)]
    name = _official(one).get("video", one.meta["pair"])
    return f"{'external' if one.type in EXTERNAL else one.type}/{name}"


def _record(pair: Pair) -> dict[str, Any]:
    sides = {side: {**_official(pair[side]), "predict": _prediction(pair[side])} for side in SIDES if side in pair}
    kind = next(iter(pair.values())).meta["type"]
    return sides if kind is None else {**sides, "type": kind}


def _official(one: Verdict) -> Mapping[str, Any]:
    """The side as the file has it; {} where that is no object."""
    record = one.meta["record"]
    return record if isinstance(record, Mapping) else {}


def _prediction(one: Verdict) -> str:
    return OPTIONS[one.prediction] if isinstance(one.prediction, int) else NO_REPLY
