"""`faithfulness` in results.json, from the records that `model.interventions` left in samples.jsonl.

importance   gate, or leave_one_out: what makes a clue important
comprehensiveness, sufficiency, deletion, insertion     see `metrics.faithfulness.curve_estimates`
swap         {flip, steer}: share of answers that another video's clues change; and of those whose donor asks the same and was
             answered with another of the options, the share that become that option
edit         {flip, steer, from_right}: the same with the words of two options exchanged in the clues, so that they support the
             other option; `from_right`: steer of the questions whose answer was right before
noise        {own, after, through, cost_after, cost_through, saved, kept, own_kept}: accuracy of the questions that got a foreign
             clue, before, with it behind the filter, with it offered to the filter; own - after, own - through, through - after;
             shares of foreign clues and of the stated ones that the filter keeps
inputs       {own, oracle, oracle_uplift, clue_only, frames_only, text_only}: accuracy with inputs given or taken away
explained    {exact, words}: {of_right, rate, accuracy_if, accuracy_if_not}: share of right answers, and of all, whose labelled
             clues all stand in the shown text, with and without the word for their time; accuracy where they do and do not.
             Questions that need no clue are left out

Shares and accuracies are over questions with options, accuracies over those with a known answer. What cannot be measured is
left out, and `notes` of results.json says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluenet.evaluate.samples import Sample, stated_clues
from cluenet.metrics.clues import Stated, exact_counts
from cluenet.metrics.faithfulness import Column, Curves, curve_estimates, estimates, mean

Block = dict[str, Any] | None

NO_RECORDS = "no question of this test set has options, so no probability can be compared"
NOT_EXTRACTED = "the model states no clues of its own"
NONE_SHOWN = "no question has a clue that passed the filter"
NOT_FOUND = {
    "swap": "no batch holds clues of another video that differ; raise evaluate.questions_per_batch",
    "edit": "no question has another option whose words can change places with the answer's in the shown clues",
    "noise": "no batch holds clues of another video that the question has not; raise evaluate.questions_per_batch",
    "inputs": "no question with options has a known answer",
    "explained": "no question with options and a known answer has labelled clues that the model could state",
}


def faithfulness(samples: Sequence[Sample], *, extracts: bool, resamples: int) -> tuple[Block, dict[str, str]]:
    """The block, None without anything to measure, and notes on what is missing from it.

    `extracts`: the model states clues of its own. Raises KeyError for samples that were evaluated without interventions.
    """
    tested = [sample for sample in samples if sample["faithfulness"] is not None]
    if not tested:
        return None, {"faithfulness": NO_RECORDS}
    known = [sample for sample in tested if sample["correct"] is not None]
    records = tested[0]["faithfulness"]
    parts: dict[str, Block] = {"inputs": _inputs(known, extracts, resamples)}
    if "swap" in records:
        parts |= {name: _steered(tested, name, resamples) for name in ("swap", "edit")}
        parts["noise"] = _noise(known, extracts, resamples)
    if extracts:
        parts["explained"] = _explained(known, resamples)
    notes = {f"faithfulness.{name}": NOT_FOUND[name] for name, part in parts.items() if part is None}
    if not extracts:
        notes |= dict.fromkeys(("faithfulness.explained", "faithfulness.oracle"), NOT_EXTRACTED)
    curves, more = _curves(tested, resamples) if "deletion" in records else ({}, {})
    return {**curves, **{name: part for name, part in parts.items() if part is not None}}, {**notes, **more}


def _videos(samples: Sequence[Sample]) -> list[str]:
    return [sample["video"] for sample in samples]


def _estimates(samples: Sequence[Sample], columns: Mapping[str, Column], resamples: int) -> dict[str, dict[str, Any]]:
    return estimates(_videos(samples), columns, resamples=resamples)


# ------------------------------------------------------------------------------------------------ clues left out


def _curves(tested: Sequence[Sample], resamples: int) -> tuple[dict[str, Any], dict[str, str]]:
    shown = [sample for sample in tested if sample["faithfulness"]["order"]]
    if not shown:
        return {}, {"faithfulness.curves": NONE_SHOWN}
    curves = [
        Curves(*(sample["faithfulness"][name] for name in ("deletion", "insertion", "random"))) for sample in shown
    ]
    gated = shown[0]["clues"][0]["gate"] is not None
    found = curve_estimates(curves, _videos(shown), resamples=resamples)
    return {"importance": "gate" if gated else "leave_one_out", **found}, {}


# --------------------------------------------------------------------------------------------------- other clues


def _steered(tested: Sequence[Sample], name: str, resamples: int) -> Block:
    """Of `swap` or `edit`."""
    met = [sample for sample in tested if sample["faithfulness"][name] is not None]
    if not met:
        return None
    found = [sample["faithfulness"][name] for sample in met]
    steered = [
        None if one["target"] is None else float(one["prediction"] == one["target"]) for one in found
    ]  # fmt: skip
    columns = {
        "flip": mean([float(one["prediction"] != sample["prediction"]) for one, sample in zip(found, met)]),
        "steer": mean(steered),
    }
    if name == "edit":
        columns["from_right"] = mean([hit if sample["correct"] else None for hit, sample in zip(steered, met)])
    return _estimates(met, columns, resamples)


def _noise(known: Sequence[Sample], extracts: bool, resamples: int) -> Block:
    met = [sample for sample in known if sample["faithfulness"]["noise"] is not None]
    if not met:
        return None
    noises = [sample["faithfulness"]["noise"] for sample in met]
    own = [float(sample["correct"]) for sample in met]
    after = [float(noise["after"] == sample["answer"]) for noise, sample in zip(noises, met)]
    columns = {"own": mean(own), "after": mean(after), "cost_after": mean([a - b for a, b in zip(own, after)])}
    if extracts:
        through = [float(noise["through"] == sample["answer"]) for noise, sample in zip(noises, met)]
        clues = [sample["clues"] for sample in met]
        columns |= {
            "through": mean(through), "cost_through": mean([a - b for a, b in zip(own, through)]),
            "saved": mean([a - b for a, b in zip(through, after)]), "kept": mean([float(noise["kept"]) for noise in noises]),
            "own_kept": ([float(sum(clue["kept"] for clue in each)) for each in clues], [float(len(each)) for each in clues]),
        }  # fmt: skip
    return _estimates(met, columns, resamples)


# ----------------------------------------------------------------------------------------------------- inputs


def _inputs(known: Sequence[Sample], extracts: bool, resamples: int) -> Block:
    if not known:
        return None
    right = [float(sample["correct"]) for sample in known]
    columns = {"own": mean(right)}
    for name in ("clue_only", "frames_only", "text_only"):
        if name in known[0]["faithfulness"]:
            columns[name] = mean([float(sample["faithfulness"][name] == sample["answer"]) for sample in known])
    if extracts and "oracle" in known[0]["rows"]:
        oracle = [
            None if sample["true_clues"] is None else float(sample["rows"]["oracle"]["correct"]) for sample in known
        ]
        gained = [None if best is None else best - own for best, own in zip(oracle, right)]
        columns |= {"oracle": mean(oracle), "oracle_uplift": mean(gained)}
    return _estimates(known, columns, resamples)


# ------------------------------------------------------------------------------------------- the displayed text


def _explained(known: Sequence[Sample], resamples: int) -> Block:
    asked = [sample for sample in known if sample["true_clues"]]
    if not asked:
        return None
    return {
        name: _explaining(asked, [stands_in_the_text(sample, first) for sample in asked], resamples)
        for name, first in (("exact", 0), ("words", 1))
    }


def stands_in_the_text(sample: Sample, first: int = 0) -> bool:
    """Whether every labelled clue is among the shown ones, each word alike from the `first` on (1: whatever the time)."""
    shown, true = (
        [Stated(clue.words[first:], None) for clue in stated_clues(clues)]
        for clues in ([clue for clue in sample["clues"] if clue["kept"]], sample["true_clues"])
    )
    return exact_counts(shown, true).hits == len(true)


def _explaining(asked: Sequence[Sample], stands: Sequence[bool], resamples: int) -> dict[str, dict[str, Any]]:
    right = [float(sample["correct"]) for sample in asked]
    both = [hit * there for hit, there in zip(right, stands)]
    absent = [not there for there in stands]
    columns: dict[str, Column] = {
        "of_right": (both, right),
        "rate": mean(list(map(float, stands))),
        "accuracy_if": (both, stands),
        "accuracy_if_not": ([hit * gone for hit, gone in zip(right, absent)], absent),
    }
    return _estimates(asked, columns, resamples)
