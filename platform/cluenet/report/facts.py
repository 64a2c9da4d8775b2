"""What a run was: its settings, how they differ from the baseline's, its model, its steps and what these took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluenet.report.sources import Evaluation, RunData

UNTOLD = ("name", "store", "runs")
"""Settings that differ without making a difference."""


@dataclass(frozen=True)
class Change:
    """One setting, by its dotted path; None: the other recipe has no such setting."""

    path: str
    baseline: str | None
    own: str | None


def changes(run: RunData, baseline: RunData) -> list[Change]:
    """Every setting that differs, in the order of the run's recipe."""
    own, theirs = dict(_leaves(run.recipe)), dict(_leaves(baseline.recipe))
    paths = [path for path in dict.fromkeys((*own, *theirs)) if path not in UNTOLD]
    return [Change(path, theirs.get(path), own.get(path)) for path in paths if own.get(path) != theirs.get(path)]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, _words(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(_words, value)) or "none"
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


def facts(run: RunData) -> list[tuple[str, str]]:
    """Short lines about the model and where the run lies."""
    model = run.recipe.get("model", {})
    parts = [(kind.replace("_", " "), _component(settings)) for kind, settings in model.items()]
    card = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in run.card.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in run.manifest.get("versions", {}).items())
    return [*parts, *card, *([("versions", versions)] if versions else []), ("folder", str(run.folder))]


def _component(settings: Any) -> str:
    if not isinstance(settings, Mapping):
        return str(settings)
    rest = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "name" and value is not None)
    named = settings.get("name", "")
    return f"{named} ({rest})" if named and rest else f"{named}{rest}"


def policy(run: RunData) -> list[tuple[str, str]]:
    """How frames were sampled, sized and stored for the first test set; empty where nothing was evaluated."""
    found = run.evaluations[0].manifest.get("policy", {}) if run.evaluations else {}
    return [
        (name.replace("_", " "), _component(value) if isinstance(value, Mapping) else _words(value))
        for name, value in found.items()
    ]


# --------------------------------------------------------------------------------------------------- efficiency


@dataclass(frozen=True)
class Step:
    """A step of the pipeline: seconds over all attempts, operations of its training, None where it has none."""

    name: str
    seconds: float
    flops: float | None
    flops_per_step: float | None
    shared_from: str


def steps(run: RunData) -> list[Step]:
    """Those that took time, or were taken over from another run."""
    found = run.manifest.get("steps", {})
    return [
        Step(name, step["seconds"], step.get("flops"), step.get("flops_per_step"), step.get("shared_from", ""))
        for name, step in found.items()
        if step.get("attempts") or step.get("shared_from")
    ]


@dataclass(frozen=True)
class Speed:
    """How dear an answer is: tokens are means per question, `latency` seconds of one worker per question (row `own`)."""

    name: str
    latency: float | None
    visual: float | None
    seen: float | None
    clue_words: float | None
    stated: float | None
    kept: float | None
    device: str
    threads: int | None


def speed(evaluation: Evaluation) -> Speed:
    tokens, manifest = evaluation.results["tokens"], evaluation.manifest
    return Speed(
        evaluation.name, manifest.get("seconds_per_question"), tokens["visual"], tokens["seen"], tokens["clue_words"],
        tokens["clues_stated"], tokens["clues_kept"], manifest.get("device", ""), manifest.get("threads"),
    )  # fmt: skip
