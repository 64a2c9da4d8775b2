"""One self-contained page about a run, `<run>/report.html`: opens without a network, in light and dark, on paper, on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cluenet.errors import DataError
from cluenet.folders import atomic_write_text
from cluenet.metrics import biases, filtering
from cluenet.metrics.faithfulness import headlines
from cluenet.metrics.statistics import Paired, paired
from cluenet.report import examples, figures
from cluenet.report.sources import Evaluation, RunData, accounts, read_run

TEMPLATE = "report.html.j2"
ROW_WORDS = {
    "own": "its own clues, after the filter",
    "oracle": "ground-truth clues: how well it reasons when extraction is perfect",
    "none": "no clues: how much it answers without them",
    "text": "its own clues read back from the displayed words: whether the words carry everything",
}


def build_report(run: Path, baseline: Path | None = None) -> Path:
    """Write `<run>/report.html` and return it. `baseline`: another run, shown beside it with paired differences.

    Raises DataError when there is nothing to report, StorageError when it cannot be written.
    """
    data = read_run(run)
    other = None if baseline is None else read_run(baseline)
    page = _environment().get_template(TEMPLATE).render(**context(data, other))
    return atomic_write_text(data.folder / "report.html", page)


def context(run: RunData, baseline: RunData | None) -> dict[str, Any]:
    """What the template gets."""
    chosen = examples.choose(run.evaluations)
    return {
        "run": run,
        "baseline": baseline,
        "sets": [test_set(evaluation, baseline) for evaluation in run.evaluations],
        "facts": facts(run),
        "stages": figures.panels(run.log),
        "accounts": accounts(run),
        "examples": examples.views(chosen),
        "figures": figures,
        "row_words": ROW_WORDS,
        "headlines": headlines,
        "diagnostics": diagnostics,
    }


def facts(run: RunData) -> list[tuple[str, str]]:
    """Short lines for the head of the page."""
    model = run.recipe.get("model", {})
    parts = [(kind.replace("_", " "), _settings(settings)) for kind, settings in model.items()]
    card = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in run.card.items()
    ]
    steps = run.manifest.get("steps", {})
    took = ", ".join(f"{name} {step['seconds']:.0f} s" for name, step in steps.items() if step.get("attempts"))
    versions = ", ".join(f"{name} {version}" for name, version in run.manifest.get("versions", {}).items())
    rest = [
        ("steps took", took),
        ("training FLOPs", training_flops(steps)),
        ("versions", versions),
        ("folder", str(run.folder)),
    ]
    return [*parts, *card, *((name, value) for name, value in rest if value)]


def training_flops(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """What the stages took, forward and backward: "stage1 1.2e+13 (1.2e+10 per step), stage2 3.1e+12 (..)"."""
    return ", ".join(
        f"{name} {step['flops']:.3g} ({step['flops_per_step']:.3g} per step"
        f"{', shared from ' + step['shared_from'] if 'shared_from' in step else ''})"
        for name, step in steps.items()
        if step.get("flops")
    )


def diagnostics(results: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any], float | None]]:
    """(what it says, unit, estimate, what chance gives or was promised) of biases and the filter's worth."""
    blocks = ((biases, results.get("biases")), (filtering, results.get("filter")))
    return [line for module, block in blocks if block for line in module.headlines(block)]


def _settings(settings: Any) -> str:
    if not isinstance(settings, Mapping):
        return str(settings)
    rest = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "name" and value is not None)
    return f"{settings.get('name', '')}{f' ({rest})' if rest else ''}"


def test_set(evaluation: Evaluation, baseline: RunData | None) -> dict[str, Any]:
    """One test set with its counterpart in the baseline, and paired differences by type where the questions are the same."""
    others = {one.name: one for one in baseline.evaluations} if baseline else {}
    other = others.get(evaluation.name)
    differences, problem = _differences(evaluation, other) if other else ({}, "")
    if baseline and not other:
        problem = f"The baseline {baseline.name} was not evaluated on this test set."
    accuracy = evaluation.results["accuracy"]
    theirs = other.results["accuracy"] if other else None
    kinds = {"all types": (accuracy["overall"], theirs and theirs["overall"])}
    if len(accuracy["by_type"]) > 1:
        kinds |= {kind: (own, theirs and theirs["by_type"].get(kind)) for kind, own in accuracy["by_type"].items()}
        kinds["mean of the types"] = (accuracy["macro"], theirs and theirs["macro"])
    lines = [
        {"kind": kind, "own": own, "other": beside or None, "difference": differences.get(kind)}
        for kind, (own, beside) in kinds.items()
    ]
    return {"name": evaluation.name, "results": evaluation.results, "lines": lines, "problem": problem}


def _differences(run: Evaluation, baseline: Evaluation) -> tuple[dict[str, Paired], str]:
    try:
        found = {"all types": _paired(run, baseline, None)}
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


# ---------------------------------------------------------------------------------------------------- the page


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(share=share, signed=signed, p_value=p_value, percent=figures.percent)
    return environment


def share(value: float | None, digits: int = 1) -> str:
    """0.123 -> "12.3"; None -> "–"."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
