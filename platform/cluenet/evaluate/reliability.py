"""Parts of results.json about trust, from samples whose answers are known.

calibration    {ece, overconfidence, brier, aurc, excess_aurc, risk_coverage}: see `metrics.calibration`
hallucination  {pair_accuracy, yes_rate, true_yes_rate, yes_bias, false_positive_rate, false_positive_ratio} of the yes/no
               questions, and the same `by_type`: see `metrics.hallucination`
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from cluenet.evaluate.samples import Sample
from cluenet.metrics.calibration import calibration
from cluenet.metrics.hallucination import YesNo, hallucination

NO_OPTIONS = "no question of this test set has options and a known answer"
WRITTEN = "answers were written (evaluate.mode generate), so they have no probability"
NO_YES_NO = "no question of this test set has the options yes and no and a known answer"


def reliability(known: Sequence[Sample], resamples: int) -> tuple[dict[str, Any], dict[str, str]]:
    """`calibration` and `hallucination` of the model's own answers, each None with a note where it cannot be measured."""
    choices = [sample for sample in known if sample["options"]]
    scored = [sample for sample in choices if "reply" not in sample]
    blocks = {"calibration": _calibration(scored, resamples), "hallucination": _hallucination(choices, resamples)}
    why = {"calibration": WRITTEN if choices else NO_OPTIONS, "hallucination": NO_YES_NO}
    return blocks, {name: why[name] for name, block in blocks.items() if block is None}


def _calibration(choices: Sequence[Sample], resamples: int) -> dict[str, Any] | None:
    if not choices:
        return None
    probabilities = [[exp(value) for value in sample["option_logprobs"]] for sample in choices]
    predictions, answers, videos = ([sample[key] for sample in choices] for key in ("prediction", "answer", "video"))
    return calibration(probabilities, predictions, answers, videos, resamples=resamples)


def _hallucination(choices: Sequence[Sample], resamples: int) -> dict[str, Any] | None:
    """Of all yes/no questions, and `by_type` where there are several types."""
    asked = [sample for sample in choices if is_yes_no(sample)]
    if not asked:
        return None
    kinds = sorted({sample["type"] for sample in asked})
    by_type = {kind: [yes_no(sample) for sample in asked if sample["type"] == kind] for kind in kinds}
    return {
        **hallucination([yes_no(sample) for sample in asked], resamples=resamples),
        "by_type": {kind: hallucination(answers, resamples=resamples) for kind, answers in by_type.items()},
    }


def is_yes_no(sample: Sample) -> bool:
    return sorted(option.casefold() for option in sample["options"]) == ["no", "yes"]


def yes_no(sample: Sample) -> YesNo:
    says, right = (
        None if sample[key] is None else sample["options"][sample[key]].casefold() == "yes"
        for key in ("prediction", "answer")
    )
    return YesNo(sample["video"], sample["meta"].get("pair"), says, right)
