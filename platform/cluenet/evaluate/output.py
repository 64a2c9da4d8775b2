"""What is left of an evaluated test set: results.json, samples.jsonl, the benchmark's own files, manifest.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from cluenet.contracts import Dataset
from cluenet.decoding import FramePolicy
from cluenet.evaluate.benchmark import NO_METRICS, benchmark, verdicts_of
from cluenet.evaluate.files import OFFICIAL, RESULTS, SAMPLES, json_lines, read_quarantine
from cluenet.evaluate.harness import harness
from cluenet.evaluate.results import summarise
from cluenet.evaluate.samples import Sample
from cluenet.evaluate.sets import TestSet
from cluenet.evaluate.shuffles import shuffles
from cluenet.folders import atomic_write_json, atomic_write_text, versions, write_manifest
from cluenet.model.checkpoint import model_address, read_card, read_frame_policy
from cluenet.plain import rounded
from cluenet.recipe import Recipe
from cluenet.registry import register


def write(recipe: Recipe, model_folder: Path, test: TestSet, settings: dict[str, Any]) -> None:
    """Of a complete set. Raises RuntimeError (a bug of ours) when a question was lost or asked twice."""
    lost, dataset = read_quarantine(test.prepared.folder), _dataset(test)
    samples = _numbered(_sorted(test), test, lost)
    verdicts = verdicts_of(samples, lost)
    results = _own_blocks(recipe, test, samples, lost)
    official = benchmark(dataset, verdicts, recipe.evaluate.bootstrap)
    if official is None:
        results["notes"]["benchmark"] = NO_METRICS
    theirs = harness(recipe, test.name, test.prepared, model_address(model_folder), dataset, verdicts, official)
    (test.folder / "manifest.json").unlink(missing_ok=True)  # of an earlier model: never beside the new files
    atomic_write_text(test.folder / SAMPLES, json_lines(samples))
    for name, text in dataset.result_files(verdicts).items():
        atomic_write_text(test.folder / OFFICIAL / name, text)
    atomic_write_json(test.folder / RESULTS, {**results, **rounded({"benchmark": official, **theirs})})
    write_manifest(test.folder, _manifest(recipe, model_folder, test, settings))
    test.results.clear()
    test.kept.remove()


def _sorted(test: TestSet) -> list[Sample]:
    samples = [sample for result in test.results.values() for sample in result.samples]
    ids = {sample["id"] for sample in samples}
    if not len(samples) == len(ids) == test.prepared.num_questions:
        raise RuntimeError(
            f"{test.name}: {len(samples)} samples of {len(ids)} ids for {test.prepared.num_questions} questions"
        )
    return sorted(samples, key=lambda sample: sample["id"])


def _numbered(samples: Sequence[Sample], test: TestSet, lost: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """With `doc_id`, the place of the question among the dataset's rows, bad ones included."""
    taken = {row["row"] for row in lost}
    rows = (row for row in count() if row not in taken)
    number = {example.id: row for example, row in zip(test.prepared.iter_examples(), rows)}
    return [{"id": sample["id"], "doc_id": number[sample["id"]], **sample} for sample in samples]


def _own_blocks(
    recipe: Recipe, test: TestSet, samples: Sequence[Sample], lost: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    first, resamples, about = test.results[0], recipe.evaluate.bootstrap, test.prepared.manifest["dataset"]
    results = summarise(samples, lost, extracts=first.extracts, notes=first.notes, resamples=resamples)
    if recipe.evaluate.shuffles > 1:
        results["shuffles"] = rounded(shuffles(samples, lost, _dataset(test), resamples=resamples))
    return {"dataset": about["name"], "split": about["split"], **results}


def _dataset(test: TestSet) -> type[Dataset]:
    """The component that the set came from; one that is not installed here brings no metrics."""
    name = test.prepared.manifest["dataset"]["name"]
    if name not in register.dataset:
        return Dataset
    found: type[Dataset] = register.dataset[name]
    return found


def _manifest(recipe: Recipe, model_folder: Path, test: TestSet, settings: dict[str, Any]) -> dict[str, Any]:
    policy = FramePolicy.from_dict(test.prepared.manifest["policy"])
    done, questions = test.results.values(), test.prepared.num_questions
    seconds = sum(result.seconds for result in done)
    return {
        "step": "evaluate", "address": test.address, "model": str(model_folder), "model_address": model_address(model_folder),
        "card": read_card(model_folder), "prepared": str(test.prepared.folder), "policy": policy.to_dict(),
        "policy_fingerprint": policy.fingerprint(),
        "policy_of_model": FramePolicy.from_dict(read_frame_policy(model_folder)).fingerprint(),
        "questions": questions, "batches": len(test.batches), "bootstrap": recipe.evaluate.bootstrap,
        **settings, "workers": recipe.evaluate.workers, "worker_seconds": round(seconds, 3),
        "questions_per_worker_second": round(questions / max(seconds, 1e-9), 2),
        "seconds_per_question": round(sum(result.own_seconds for result in done) / questions, 6),
        "versions": versions("torch", "transformers", "ray"),
    }  # fmt: skip
