"""Scores a model on prepared test sets with Ray Data: batches in, samples out, results by a pure function of the samples.

    <out>/<dataset>-<split>/
        results.json     see `evaluate.results`
        samples.jsonl    see `evaluate.samples`, sorted by question id
        official/        what the benchmark's own script or server takes, for datasets that have such files
        manifest.json    address, model, prepared set, frame policy, timings, versions; written last. `seconds_per_question`
                         is what row `own` takes in batches, video encoding included, decoding and other rows not

The same model and test set give the same bytes of results.json and samples.jsonl, whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluenet import fingerprint
from cluenet.contracts import Dataset
from cluenet.decoding import FramePolicy
from cluenet.errors import CheckpointError, DataError
from cluenet.evaluate.batches import BatchEvaluator, BatchResult, Part, batches_of, opened
from cluenet.evaluate.benchmark import NO_METRICS, benchmark, verdicts_of
from cluenet.evaluate.results import summarise
from cluenet.evaluate.samples import Sample
from cluenet.folders import atomic_write_json, atomic_write_text, finished, read_manifest, write_manifest
from cluenet.model.build import build_model
from cluenet.model.checkpoint import CONFIG, WEIGHTS, read_card, read_frame_policy, save_model
from cluenet.plain import rounded
from cluenet.prepared import PreparedSet
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.records import content_hash
from cluenet.registry import register

RESULTS, SAMPLES, QUARANTINE, OFFICIAL = "results.json", "samples.jsonl", "quarantine.jsonl", "official"


@dataclass
class TestSet:
    """One prepared test set on its way to results."""

    __test__ = False  # for pytest: not a test

    name: str  # <dataset>-<split>
    prepared: PreparedSet
    folder: Path  # where its results go
    address: str
    batches: list[list[Part]]
    done: list[BatchResult] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.batches)


Work = list[tuple[TestSet, list[Part]]]


def evaluate(
    recipe: Recipe, *, model_folder: Path, prepared: Sequence[Path], out: Path, progress: type[Progress] = Progress,
    allow_policy_mismatch: bool = False, local: bool = False,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Evaluate the model on every prepared set; returns {name of the set: its results.json}, in their order.

    out: gets a folder per set, `<run>/evaluation` for a run. progress: makes the progress display. local: in this process,
    without Ray. A set that is evaluated already under the same address is read, not done again; sets are written as they end.

    Raises CheckpointError when the model cannot be loaded, or saw other frames in training than the prepared ones
    (`allow_policy_mismatch` allows it, and results say so), DataError for a damaged set, ClusterError, StorageError.
    """
    model_folder, out = Path(model_folder).absolute(), Path(out).absolute()
    sets = test_sets(recipe, model_folder, prepared, out)
    for test in sets:
        if not allow_policy_mismatch:
            check_policy(model_folder, test.prepared)
    todo = [test for test in sets if not _is_done(test)]
    if todo:
        _run(recipe, model_folder, todo, progress, local=local)
    return {test.name: read_results(test.folder) for test in sets}


def test_sets(recipe: Recipe, model_folder: Path, prepared: Sequence[Path], out: Path) -> list[TestSet]:
    """What there is to do. Raises DataError when nothing is."""
    if not prepared:
        raise DataError(
            f"{recipe.name}: data.test is empty, so there is nothing to evaluate on. Name a test set there."
        )
    opened_sets = [PreparedSet(folder) for folder in dict.fromkeys(Path(folder).absolute() for folder in prepared)]
    model = model_address(model_folder)
    return [
        TestSet(
            name, one, out / name, fingerprint.evaluation(recipe, model, one.folder.name),
            batches_of(one, recipe.evaluate.questions_per_batch),
        )
        for name, one in zip(_names(opened_sets), opened_sets)
    ]  # fmt: skip


test_sets.__test__ = False  # type: ignore[attr-defined]


def _names(sets: Sequence[PreparedSet]) -> list[str]:
    """<dataset>-<split>; two sets of one dataset and split also carry the start of their address."""
    names = ["{name}-{split}".format(**one.manifest["dataset"]) for one in sets]
    return [name if names.count(name) == 1 else f"{name}-{one.folder.name[:8]}" for name, one in zip(names, sets)]


def model_address(folder: Path) -> str:
    """The address in the model folder's manifest, else one made from its files: big weight files by size, never read.

    Raises CheckpointError when there is no model.
    """
    read_card(folder)  # says what is missing
    if finished(folder) and (address := read_manifest(folder).get("address")):
        return str(address)
    backbone = folder / "backbone"
    small = {file.name: file.read_text() for file in sorted(backbone.glob("*.json"))}
    large = {file.name: file.stat().st_size for file in sorted(backbone.glob("*.safetensors"))}
    heads = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() if (folder / WEIGHTS).is_file() else None
    return content_hash((folder / CONFIG).read_text(), heads, small, large)


def check_policy(model_folder: Path, prepared: PreparedSet) -> None:
    """Raises CheckpointError, naming every setting that differs, when model and prepared set disagree about frames."""
    wanted, found = (
        FramePolicy.from_dict(values) for values in (read_frame_policy(model_folder), prepared.manifest["policy"])
    )
    if wanted.fingerprint() == found.fingerprint():
        return
    lines = [
        f"  data.{name}: the model was trained with {json.dumps(a)}, prepared with {json.dumps(b)}"
        for name in ("sampler", "size", "codec")
        if (a := getattr(wanted, name)) != (b := getattr(found, name))
    ]
    detail = "\n".join(lines) or "  the sampler's version has changed"
    raise CheckpointError(
        f"{model_folder}: {prepared.folder} holds other frames than this model was trained on:\n{detail}\n"
        "Prepare the test set with the model's settings (its frame_policy.json), or allow the mismatch on purpose."
    )


def _is_done(test: TestSet) -> bool:
    there = all((test.folder / name).is_file() for name in (RESULTS, SAMPLES))
    return there and finished(test.folder) and read_manifest(test.folder).get("address") == test.address


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of one evaluated test set. Raises DataError when it cannot be read."""
    return _read(folder / RESULTS, json.loads)


def read_samples(folder: Path) -> list[Sample]:
    """samples.jsonl of one evaluated test set. Raises DataError when it cannot be read."""
    return _read(folder / SAMPLES, lambda text: [json.loads(line) for line in text.splitlines()])


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Delete {path.parent} and evaluate again.") from error


# ------------------------------------------------------------------------------------------------------ running


def _run(recipe: Recipe, model_folder: Path, todo: list[TestSet], progress: type[Progress], *, local: bool) -> None:
    work: Work = [(test, batch) for test in todo for batch in test.batches]
    section, useful = recipe.evaluate, recipe.train.last_stage.filter_loss
    settings = {
        "rows": section.rows, "threads": section.threads, "device": _device(recipe), "faithfulness": section.faithfulness,
        "utility": useful.utility, "delta": useful.delta,
    }  # fmt: skip
    total = sum(test.prepared.num_questions for test in todo)
    with progress("Evaluating", total=total, unit="questions") as display:
        for test, result in _results(recipe, model_folder, work, settings, local=local):
            test.done.append(result)
            display.advance(len(result.samples))
            if test.complete:
                _write(recipe, model_folder, test, settings)


def _device(recipe: Recipe) -> str:
    """Evaluation workers get a GPU where training workers do."""
    return "cuda" if recipe.train.resources.gpu else "cpu"


def _results(
    recipe: Recipe, model_folder: Path, work: Work, settings: dict[str, Any], *, local: bool
) -> Iterator[tuple[TestSet, BatchResult]]:
    if local:
        evaluator = BatchEvaluator(model_folder, **settings)
        return ((test, evaluator(opened(str(test.prepared.folder)), batch)) for test, batch in work)
    from cluenet.evaluate.workers import results_of

    return ((work[index][0], result) for index, result in results_of(recipe, model_folder, work, settings))


def _write(recipe: Recipe, model_folder: Path, test: TestSet, settings: dict[str, Any]) -> None:
    """The three files; raises RuntimeError (a bug of ours) when a question was lost or asked twice."""
    samples = sorted((sample for result in test.done for sample in result.samples), key=lambda sample: sample["id"])
    ids = {sample["id"] for sample in samples}
    if not len(samples) == len(ids) == test.prepared.num_questions:
        raise RuntimeError(
            f"{test.name}: {len(samples)} samples of {len(ids)} ids for {test.prepared.num_questions} questions"
        )
    first, lost = test.done[0], list(quarantined(test.prepared))
    results = summarise(samples, lost, extracts=first.extracts, notes=first.notes, resamples=recipe.evaluate.bootstrap)
    about = {key: test.prepared.manifest["dataset"][key] for key in ("name", "split")}
    dataset, verdicts = _dataset(about["name"]), verdicts_of(samples, lost)
    official = benchmark(dataset, verdicts, recipe.evaluate.bootstrap)
    if official is None:
        results["notes"]["benchmark"] = NO_METRICS
    (test.folder / "manifest.json").unlink(missing_ok=True)  # of an earlier model: never beside the new files
    atomic_write_text(test.folder / SAMPLES, _lines(samples))
    for name, text in dataset.result_files(verdicts).items():
        atomic_write_text(test.folder / OFFICIAL / name, text)
    head = {"dataset": about["name"], "split": about["split"]}
    atomic_write_json(test.folder / RESULTS, {**head, **results, "benchmark": rounded(official)})
    write_manifest(test.folder, _manifest(recipe, model_folder, test, settings))
    test.done.clear()


def _dataset(name: str) -> type[Dataset]:
    """The component that the set came from; one that is not installed here brings no metrics."""
    if name not in register.dataset:
        return Dataset
    found: type[Dataset] = register.dataset[name]
    return found


def _lines(samples: Iterable[Sample]) -> str:
    return "".join(json.dumps(sample, allow_nan=False, ensure_ascii=False) + "\n" for sample in samples)


def quarantined(prepared: PreparedSet) -> Iterator[dict[str, Any]]:
    """Rows of the set's quarantine.jsonl. Raises DataError when it is damaged."""
    path = prepared.folder / QUARANTINE
    yield from _read(path, lambda text: [json.loads(line) for line in text.splitlines()])


def _manifest(recipe: Recipe, model_folder: Path, test: TestSet, settings: dict[str, Any]) -> dict[str, Any]:
    policy = FramePolicy.from_dict(test.prepared.manifest["policy"])
    seconds = sum(result.seconds for result in test.done)
    return {
        "step": "evaluate", "address": test.address, "model": str(model_folder), "model_address": model_address(model_folder),
        "card": read_card(model_folder), "prepared": str(test.prepared.folder), "policy": policy.to_dict(),
        "policy_fingerprint": policy.fingerprint(),
        "policy_of_model": FramePolicy.from_dict(read_frame_policy(model_folder)).fingerprint(),
        "questions": test.prepared.num_questions, "batches": len(test.batches), "bootstrap": recipe.evaluate.bootstrap,
        **settings, "workers": recipe.evaluate.workers, "worker_seconds": round(seconds, 3),
        "questions_per_worker_second": round(test.prepared.num_questions / max(seconds, 1e-9), 2),
        "seconds_per_question": round(sum(result.own_seconds for result in test.done) / test.prepared.num_questions, 6),
        "versions": {name: version(name) for name in ("cluenet", "torch", "transformers", "ray")},
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- zero-shot


def zero_shot_folder(recipe: Recipe, base: Path, out: Path) -> Path:
    """A model folder of a plain Hugging Face checkpoint, untrained: no clues, the answer from the video alone.

    base: folder in Hugging Face layout. Videos are sampled as the recipe's `data:` says. Returns `out`, at once when it was
    made from the same settings and base. Raises CheckpointError for a folder that is no known checkpoint.
    """
    section = recipe.model.model_copy(update={
        "clue_extractor": register.clue_extractor.parse("none"), "clue_filter": register.clue_filter.parse("keep_all"),
        "reasoner": register.reasoner.parse({"name": "direct", "scoring": recipe.model.reasoner.to_dict()["scoring"]}),
    })  # fmt: skip
    recipe = recipe.model_copy(update={"model": section})
    policy = FramePolicy.from_section(recipe.data).to_dict()
    files = [(file.name, file.stat().st_size) for file in sorted(Path(base).glob("*")) if file.is_file()]
    address = content_hash("zero-shot", section.model_dump(mode="json"), policy, str(Path(base).absolute()), files)
    if finished(out) and read_manifest(out).get("address") == address:
        return out
    model = build_model(section, base, seed=recipe.seed)
    card = {"training": "none (zero-shot)", "base": str(base), **model.describe()}
    (out / "manifest.json").unlink(missing_ok=True)
    save_model(model, out, recipe=recipe.to_dict(), frame_policy=policy, card=card)
    write_manifest(out, {"address": address, "checkpoint": None})
    return out
