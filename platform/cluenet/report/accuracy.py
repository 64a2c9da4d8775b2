"""Accuracy by question type: the run beside its baseline, and with other clues in the place of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluenet.errors import DataError
from cluenet.metrics.accuracy import accuracy, is_right
from cluenet.metrics.statistics import Paired, paired
from cluenet.report.charts import Chart, Dots, Estimate, dot_plot
from cluenet.report.sources import Evaluation, RunData

OVERALL, MACRO = "all types", "mean of the types"
ROW_WORDS = {
    "own": "its own clues, after the filter",
    "oracle": "ground-truth clues: how well it reasons when extraction is perfect",
    "none": "no clues: how much it answers without them",
    "text": "its own clues read back from the displayed words: whether the words carry everything",
}


@dataclass(frozen=True)
class Line:
    """One question type: the run's accuracy, the baseline's, and their paired difference; None where there is none."""

    kind: str
    own: Estimate
    other: Estimate | None
    difference: Paired | None


@dataclass(frozen=True)
class TestSet:
    """One test set with its counterpart in the baseline. `problem`: why there is no difference."""

    __test__ = False  # for pytest: not a test

    name: str
    results: dict[str, Any]
    lines: list[Line]
    problem: str
    chart: Chart


def test_set(evaluation: Evaluation, baseline: RunData | None) -> TestSet:
    """With paired differences by type where the questions are the same."""
    others = {one.name: one for one in baseline.evaluations} if baseline else {}
    other = others.get(evaluation.name)
    differences, problem = _differences(evaluation, other) if other else ({}, "")
    if baseline and not other:
        problem = f"The baseline {baseline.name} was not evaluated on this test set."
    own, theirs = (_by_kind(one.results["accuracy"]) if one else {} for one in (evaluation, other))
    lines = [Line(kind, found, theirs.get(kind), differences.get(kind)) for kind, found in own.items()]
    return TestSet(evaluation.name, evaluation.results, lines, problem, _chart(evaluation, own, theirs, baseline))


test_set.__test__ = False  # type: ignore[attr-defined]


def _by_kind(block: Mapping[str, Any]) -> dict[str, Estimate]:
    """Of one block of accuracies: overall, then by type where there are several, and their mean."""
    kinds = block["by_type"]
    return {OVERALL: block["overall"], **({**kinds, MACRO: block["macro"]} if len(kinds) > 1 else {})}


# ------------------------------------------------------------------------------------------------------- chart


def _chart(
    evaluation: Evaluation, own: Mapping[str, Estimate], theirs: Mapping[str, Estimate], baseline: RunData | None
) -> Chart:
    rows = evaluation.results["rows"]
    found = [("this run", "own", own)]
    if baseline and theirs:
        found.append((f"baseline ({baseline.name})", "baseline", theirs))
    if "oracle" in rows:
        found.append(("with ground-truth clues (oracle)", "oracle", _by_kind(rows["oracle"])))
    if noise := with_noise(evaluation):
        found.append(("with a foreign clue (noise)", "noise", noise))
    if "none" in rows:
        found.append(("without clues", "none", _by_kind(rows["none"])))
    columns = [Dots(name, role, [block.get(kind) for kind in own]) for name, role, block in found]
    return dot_plot(
        "Accuracy by question type", list(own), columns, x="questions answered right, %",
        reference=evaluation.results["chance"],
        caption="Lines are 95 % intervals; dotted: guessing over all questions.",
    )  # fmt: skip


def with_noise(evaluation: Evaluation) -> dict[str, Estimate] | None:
    """Accuracy by type of the questions that got a clue of another video behind the filter; None where none did."""
    met = [
        sample for sample in evaluation.samples
        if sample["correct"] is not None and (sample.get("faithfulness") or {}).get("noise")
    ]  # fmt: skip
    if not met:
        return None
    right = [is_right(sample["faithfulness"]["noise"]["after"], sample["answer"]) for sample in met]
    types, videos = ([sample[key] for sample in met] for key in ("type", "video"))
    return _by_kind(accuracy(right, types, videos, resamples=evaluation.resamples).to_dict())


# -------------------------------------------------------------------------------------------------- differences


def _differences(run: Evaluation, baseline: Evaluation) -> tuple[dict[str, Paired], str]:
    try:
        found = {OVERALL: _paired(run, baseline, None)}
        kinds = run.results["accuracy"]["by_type"]
        return {**found, **{kind: _paired(run, baseline, kind) for kind in kinds}}, ""
    except DataError as error:
        return {}, f"No differences: {error}"


def _paired(run: Evaluation, baseline: Evaluation, kind: str | None) -> Paired:
    a, b = (
        {s["id"]: s["correct"] for s in one.samples if s["correct"] is not None and kind in (None, s["type"])}
        for one in (baseline, run)
    )
    return paired(a, b, {s["id"]: s["video"] for s in run.samples})
