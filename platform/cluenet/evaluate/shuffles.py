"""`shuffles` of results.json: how scores depend on the order in which options are shown. Only with `evaluate.shuffles` above 1.

n           number of orders
accuracy    {values, mean, std}: of the questions that were asked, by order; std is the sample standard deviation
all         the same, what could not be asked being wrong
by_type     {type: {values, mean, std}}
benchmark   {all, answered}: the same for each of the dataset's own measures, as in the block of that name
consistent  share of questions that got the same answer in every order
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from cluenet.contracts import Dataset
from cluenet.evaluate.benchmark import benchmark, is_hidden, verdicts_of
from cluenet.evaluate.samples import Sample
from cluenet.metrics.faithfulness import estimates, mean


def shuffles(
    samples: Sequence[Sample], lost: Sequence[Mapping[str, Any]], dataset: type[Dataset], *, resamples: int
) -> dict[str, Any]:
    """`samples` have `shuffles`; `lost`: rows of quarantine.jsonl."""
    orders = [[_in_order(sample, number) for sample in samples] for number in range(1 + len(samples[0]["shuffles"]))]
    known = [[sample for sample in order if sample["correct"] is not None] for order in orders]
    types = sorted({sample["type"] for sample in known[0]})
    return {
        "n": len(orders),
        "accuracy": _spread([_accuracy(order) for order in known]),
        "all": _spread([_accuracy(order, lost=sum(not is_hidden(row) for row in lost)) for order in known]),
        "by_type": {
            kind: _spread([_accuracy([s for s in order if s["type"] == kind]) for order in known]) for kind in types
        },
        "benchmark": _benchmark(orders, lost, dataset),
        "consistent": _consistent(samples, resamples),
    }


def _in_order(sample: Sample, number: int) -> Sample:
    return sample if number == 0 else {**sample, **sample["shuffles"][number - 1]}


def _accuracy(known: Sequence[Sample], lost: int = 0) -> float | None:
    """`lost`: number of questions that could not be asked."""
    return sum(sample["correct"] for sample in known) / (len(known) + lost) if known else None


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    there = [value for value in values if value is not None]
    return {
        "values": list(values),
        "mean": fmean(there) if there else None,
        "std": stdev(there) if len(there) > 1 else None,
    }


def _benchmark(
    orders: Sequence[Sequence[Sample]], lost: Sequence[Mapping[str, Any]], dataset: type[Dataset]
) -> dict[str, Any]:
    """Of `all` and of `answered`; {} where there is nothing to measure by."""
    found = [one for order in orders if (one := benchmark(dataset, verdicts_of(order, lost), 1))]
    return {block: _by_measure([one[block] for one in found]) for block in (found[0] if found else ())}


def _by_measure(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A measure of which nothing is answered in one order has no value there."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: _spread([one[name]["value"] if name in one else None for one in found]) for name in names}


def _consistent(samples: Sequence[Sample], resamples: int) -> dict[str, Any] | None:
    choices = [sample for sample in samples if sample["options"]]
    same = [float(all(one["prediction"] == sample["prediction"] for one in sample["shuffles"])) for sample in choices]
    videos = [sample["video"] for sample in choices]
    return estimates(videos, {"": mean(same)}, resamples=resamples)[""] if choices else None
