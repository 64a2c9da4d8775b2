"""The evaluations of several runs, read for a comparison, and what makes runs comparable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluenet.errors import DataError, suggestion
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.samples import Sample
from cluenet.folders import finished, read_manifest

SAME_PARTS = ("video", "question", "options", "answer", "type", "meta")
FRAMES = ("sampler", "size", "codec")


class EvaluatedRun:
    """A run folder with finished evaluations. sets: folders of those that count; None: all. Raises DataError when there is none."""

    def __init__(self, folder: Path, sets: Iterable[Path] | None = None):
        self.folder, where = Path(folder), Path(folder) / "evaluation"
        self.sets = {path.name: path for path in sorted(where.glob("*") if sets is None else sets) if finished(path)}
        if not self.sets:
            raise DataError(
                f"{folder}: no finished evaluation in {where}. Evaluate the run first: cluenet evaluate RECIPE"
            )

    @cached_property
    def manifests(self) -> dict[str, dict[str, Any]]:
        return {name: read_manifest(path) for name, path in self.sets.items()}

    @cached_property
    def samples(self) -> dict[str, dict[str, Sample]]:
        """By test set and question id. Raises DataError for samples that an earlier version wrote."""
        return {name: {sample["id"]: sample for sample in _samples(path)} for name, path in self.sets.items()}


def _samples(path: Path) -> list[Sample]:
    samples = read_samples(path)
    if any("meta" not in sample for sample in samples):
        raise DataError(
            f"{path}: its samples have no `meta`, an earlier version wrote them. Delete that folder and evaluate again."
        )
    return samples


@dataclass(frozen=True)
class Arm:
    """One run, or several that differ in their seed alone."""

    name: str
    runs: tuple[EvaluatedRun, ...]

    def known(self, test_set: str) -> list[str]:
        """Ids of the questions whose answers are known."""
        return [key for key, sample in self.runs[0].samples[test_set].items() if sample["correct"] is not None]


def same_models(one: Arm, other: Arm, test_set: str) -> bool:
    """Whether these are, run by run, the same models, evaluated in two ways."""
    models = [[run.manifests[test_set].get("model_address") for run in arm.runs] for arm in (one, other)]
    return models[0] == models[1] and None not in models[0]


def read_arms(arms: Sequence[Sequence[Path]], *, across_frames: bool = False) -> list[Arm]:
    """Every arm's run folders. Raises DataError that lists everything in which a run differs from the first one.

    across_frames: runs may have seen other frames of the same videos.
    """
    names = [_name([Path(folder).name for folder in folders]) for folders in arms]
    if len(set(names)) < len(names):
        names = [_name([str(folder) for folder in folders]) for folders in arms]
    read = [Arm(name, tuple(map(EvaluatedRun, folders))) for name, folders in zip(names, arms)]
    base = read[0].runs[0]
    problems = [problem for arm in read for problem in _one_model_twice(arm)]
    others = [run for arm in read for run in arm.runs if run is not base]
    problems += [problem for run in others for problem in differences(base, run, across_frames=across_frames)]
    if problems:
        raise DataError("these runs cannot be compared\n" + "\n".join(f"  {problem}" for problem in problems))
    return read


def _name(runs: Sequence[str]) -> str:
    """The first run, and how many more there are."""
    return runs[0] if len(runs) == 1 else f"{runs[0]} +{len(runs) - 1}"


def _one_model_twice(arm: Arm) -> Iterator[str]:
    """A model that counts as two seeds would make an interval too narrow."""
    seen: dict[str, Path] = {}
    for run in arm.runs:
        models = {str(manifest.get("model_address", "")) for manifest in run.manifests.values()} - {""}
        for model in sorted({str(run.folder.absolute()), *models}):
            if model in seen:
                yield f"{run.folder}: the same model as {seen[model]}, in one arm. Join runs of different seeds with commas."
                break
            seen[model] = run.folder


def differences(base: EvaluatedRun, run: EvaluatedRun, *, across_frames: bool = False) -> Iterator[str]:
    """What forbids to compare: other test sets, frame policy, ways of asking, questions, number of options, words, or pairs."""
    for name in {**base.sets, **run.sets}:
        if name not in base.sets or name not in run.sets:
            without = base if name not in base.sets else run
            yield f"{without.folder}: not evaluated on {name!r}. {suggestion(name, without.sets, label='Evaluated on')}"
            continue
        for problem in (
            None if across_frames else _policy(base, run, name),
            _asking(base, run, name),
            _questions(base.samples[name], run.samples[name]),
        ):
            if problem:
                yield f"{run.folder} against {base.folder}: {name}: {problem}"


def _policy(base: EvaluatedRun, run: EvaluatedRun, name: str) -> str | None:
    """Frames are equal when their fingerprints are (see `FramePolicy.fingerprint`)."""
    ours, theirs = base.manifests[name], run.manifests[name]
    prints = [manifest.get("policy_fingerprint") for manifest in (ours, theirs)]
    if None in prints:
        without = (base, run)[prints.index(None)]
        return f"{without.sets[name]}/manifest.json has no policy_fingerprint. Delete that folder and evaluate again."
    if prints[0] == prints[1]:
        return None
    policies = [manifest.get("policy", {}) for manifest in (ours, theirs)]
    parts = [
        f"data.{part} is {policies[1].get(part)!r} and {policies[0].get(part)!r}"
        for part in FRAMES
        if policies[0].get(part) != policies[1].get(part)
    ]
    what = "; ".join(parts) or "the sampler's version differs"
    return f"other frames: {what}. Evaluate both on test sets that are prepared with the same settings."


def _asking(base: EvaluatedRun, run: EvaluatedRun, name: str) -> str | None:
    """Whether answers were scored or written, and in which order options were shown."""
    ours, theirs = (
        {**one.manifests[name], "stored": not one.manifests[name].get("shuffles", 1)} for one in (base, run)
    )
    names = {"mode": "evaluate.mode", "seed": "evaluate.seed", "stored": "the stored order (evaluate.shuffles=0)"}
    parts = [
        f"{what} is {theirs.get(key)!r} and {ours.get(key)!r}"
        for key, what in names.items()
        if ours.get(key) != theirs.get(key)
    ]
    return f"asked in another way: {'; '.join(parts)}. Evaluate both with the same settings." if parts else None


def _questions(ours: Mapping[str, Sample], theirs: Mapping[str, Sample]) -> str | None:
    missing, extra = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    advice = "Evaluate both on the same test sets (`data.test`)."
    if missing or extra:
        shown = ", ".join([*missing[:3], *extra[:3]])
        return f"other question ids: {len(missing)} are missing and {len(extra)} are new, such as {shown}. {advice}"
    sizes = [key for key in ours if len(ours[key]["options"]) != len(theirs[key]["options"])]
    if sizes:
        counts = " and ".join(str(len(side[sizes[0]]["options"])) for side in (theirs, ours))
        return f"other numbers of options: {len(sizes)} questions, such as {sizes[0]} with {counts}. {advice}"
    other = ((key, part) for key in ours for part in SAME_PARTS if ours[key][part] != theirs[key][part])
    for key, part in other:
        return f"question {key}: {part} is {theirs[key][part]!r} and {ours[key][part]!r}. {advice}"
    return None
