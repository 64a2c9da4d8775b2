"""results.json: a pure function of samples.jsonl and of what was quarantined before any question could be asked.

    accuracy   of the model's own answers: {overall, macro, by_type, all}; in `all` quarantined questions count as wrong, but
               for those whose answer is not public
    rows       the same for each row: own, oracle (ground-truth clues), none, text (the displayed words)
    chance     accuracy of guessing: mean of 1 / options
    positions  how often each letter was predicted, and how often it was right, by the place where options were shown
    clues      {stated, kept}: agreement with labelled clues (see cluenet.metrics.clues), before and after the filter
    pointing   {rate, chance}: how often attention's peak lies on a labelled box, and a random token would
    calibration, hallucination  see `evaluate.reliability`
    faithfulness                see `evaluate.faithfulness`; this and the next only there with `evaluate.faithfulness`
    biases, filter              see `metrics.biases`, `metrics.filtering`
    benchmark  see `evaluate.benchmark`
    shuffles   see `evaluate.shuffles`; only with `evaluate.shuffles` above 1
    tokens     means per question: visual, seen by the answer pass, clue words, clues stated, clues kept
    counts     of questions, videos, clips and quarantined rows; `unparsed`: written replies that name no option
    notes      what is missing here, and why
    results, n-samples, config, ..     see `evaluate.harness`

Every estimate is {value, low, high, n}: a 95 % bootstrap interval by video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from cluenet.evaluate.benchmark import is_hidden
from cluenet.evaluate.faithfulness import faithfulness
from cluenet.evaluate.reliability import reliability
from cluenet.evaluate.samples import Sample, stated_clues
from cluenet.metrics import clues as clue_metrics
from cluenet.metrics.accuracy import accuracy, accuracy_on_all, chance, position_counts
from cluenet.metrics.biases import biases
from cluenet.metrics.filtering import filter_worth
from cluenet.metrics.statistics import ratios
from cluenet.plain import rounded

ROWS = ("own", "oracle", "none", "text")
NO_CLUES = "the model reads no clues, so its own answers are the only row"
NO_LABELS = "no question of this test set has labelled clues"
NOT_EXTRACTED = "the model's clues come from the labels, so there is nothing to compare with them"
NO_BOXES = "no stated clue has both attention and a labelled box to point at"


def available_rows(wanted: Collection[str], *, reads_clues: bool, labelled: bool) -> tuple[list[str], dict[str, str]]:
    """Rows that can be measured (`own` always, and first), and why the other wanted ones cannot."""
    others = [row for row in ROWS[1:] if row in wanted]
    if not reads_clues:
        return ["own"], {f"rows.{row}": NO_CLUES for row in others}
    missing = {} if labelled or "oracle" not in others else {"rows.oracle": NO_LABELS}
    return ["own", *(row for row in others if f"rows.{row}" not in missing)], missing


def summarise(
    samples: Sequence[Sample],
    lost: Sequence[Mapping[str, Any]],
    *,
    extracts: bool,
    notes: Mapping[str, str],
    resamples: int,
) -> dict[str, Any]:
    """`lost`: rows of quarantine.jsonl. `extracts`: whether the model states clues of its own, as opposed to the labels'."""
    known = [sample for sample in samples if sample["correct"] is not None]
    rows = ["own", *known[0]["rows"]] if known else ["own"]
    blocks = {row: _accuracy(known, row, lost, resamples) for row in rows}
    agreement, more_notes = _clues(samples, extracts, resamples)
    trust, trust_notes = reliability(known, resamples)
    if samples and "faithfulness" in samples[0]:
        trust["faithfulness"], more = faithfulness(samples, extracts=extracts, resamples=resamples)
        trust["biases"], biased = biases(samples, resamples=resamples)
        trust["filter"], filtering = filter_worth(samples, resamples=resamples)
        trust_notes |= {**more, **biased, **filtering}
    results: dict[str, Any] = rounded({
        "accuracy": blocks["own"], "rows": blocks,
        "chance": chance([len(sample["options"]) for sample in known]), "positions": _positions(known),
        **agreement, **trust, "tokens": _tokens(samples), "counts": _counts(samples, known, lost),
        "notes": {**notes, **more_notes, **trust_notes},
    })  # fmt: skip
    return results


def _videos(samples: Sequence[Sample]) -> list[str]:
    return [sample["video"] for sample in samples]


def _accuracy(known: Sequence[Sample], row: str, lost: Sequence[Mapping[str, Any]], resamples: int) -> dict[str, Any]:
    right = [sample["correct"] if row == "own" else sample["rows"][row]["correct"] for sample in known]
    of_asked = accuracy(right, [sample["type"] for sample in known], _videos(known), resamples=resamples)
    wrong = [one["path"] for one in lost if not is_hidden(one)]
    of_all = accuracy_on_all(right, _videos(known), wrong, resamples=resamples)
    return {**of_asked.to_dict(), "all": of_all.to_dict()}


def _positions(known: Sequence[Sample]) -> dict[str, list[int]]:
    choices = [sample for sample in known if sample["options"]]
    widest = max((len(sample["options"]) for sample in choices), default=0)
    parsed = [sample for sample in choices if sample["prediction"] is not None]
    return {
        "predicted": position_counts([_letter(sample, "prediction") for sample in parsed], widest),
        "right": position_counts([_letter(sample, "answer") for sample in choices], widest),
    }


def _letter(sample: Sample, key: str) -> int:
    place: int = sample["order"].index(sample[key])
    return place


def _clues(samples: Sequence[Sample], extracts: bool, resamples: int) -> tuple[dict[str, Any], dict[str, str]]:
    """`clues` and `pointing`, each None with a note where it cannot be measured."""
    labelled = [sample for sample in samples if sample["true_clues"] is not None]
    if not extracts or not labelled:
        why = NO_LABELS if extracts else NO_CLUES if not any(sample["clues"] for sample in samples) else NOT_EXTRACTED
        return {"clues": None, "pointing": None}, {"clues": why, "pointing": why}
    clues = {
        "stated": _agreement(labelled, resamples, kept_only=False),
        "kept": _agreement(labelled, resamples, kept_only=True),
    }
    pointed = _pointing(labelled, resamples)
    return {"clues": clues, "pointing": pointed}, {} if pointed else {"pointing": NO_BOXES}


def _agreement(labelled: Sequence[Sample], resamples: int, *, kept_only: bool) -> dict[str, Any]:
    counts = [
        clue_metrics.count_all(
            stated_clues([clue for clue in sample["clues"] if clue["kept"] or not kept_only]),
            stated_clues(sample["true_clues"]),
        )
        for sample in labelled
    ]
    return clue_metrics.scores(counts, _videos(labelled), resamples=resamples)


def _pointing(labelled: Sequence[Sample], resamples: int) -> dict[str, Any] | None:
    pairs = [(sample["video"], clue) for sample in labelled for clue in sample["clues"] if clue["pointing"] is not None]
    if not pairs:
        return None
    hits_N1 = np.array([[float(clue["pointing"])] for _, clue in pairs])
    (rate,) = ratios([video for video, _ in pairs], hits_N1, np.ones_like(hits_N1), resamples=resamples)
    return {"rate": rate.to_dict(), "chance": fmean(clue["pointing_chance"] for _, clue in pairs)}


def _tokens(samples: Sequence[Sample]) -> dict[str, float | None]:
    def mean(values: list[int]) -> float | None:
        return fmean(values) if values else None

    return {
        **{name: mean([sample["tokens"][name] for sample in samples]) for name in ("visual", "seen", "clue_words")},
        "clues_stated": mean([len(sample["clues"]) for sample in samples]),
        "clues_kept": mean([sum(clue["kept"] for clue in sample["clues"]) for sample in samples]),
    }


def _counts(samples: Sequence[Sample], known: Sequence[Sample], lost: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`answered` questions are behind `accuracy`; `asked` - `answered` have no known answer."""
    return {
        "rows": len(samples) + len(lost), "asked": len(samples), "answered": len(known), "quarantined": len(lost),
        "reasons": dict(sorted(Counter(row["reason"] for row in lost).items())),
        "videos": len(set(_videos(samples))), "clips": len({sample["clip"] for sample in samples}),
        "labelled": sum(sample["true_clues"] is not None for sample in samples),
        "unparsed": sum(sample["prediction"] is None for sample in samples),
    }  # fmt: skip
