"""Everything a report shows, read from the folders of a run: nothing is computed again, nothing needs torch or Ray.

A part that is missing (a run that was not trained, a store that was deleted) is said in the report, not an error; only a
run without a single finished evaluation and without a training log is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cluenet import storage
from cluenet.errors import CluenetError, DataError
from cluenet.folders import finished, read_manifest
from cluenet.metrics.statistics import RESAMPLES

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Evaluation:
    """One test set: see `cluenet.evaluate` for what the files hold."""

    name: str
    results: dict[str, Any]
    samples: list[dict[str, Any]]
    manifest: dict[str, Any]

    @property
    def resamples(self) -> int:
        """Of the bootstrap, as its own intervals were made."""
        return int(self.manifest.get("bootstrap", RESAMPLES))

    @cached_property
    def _facts(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for sample in self.samples:
            found.setdefault(sample["clip"], []).extend(sample["true_clues"] or ())
        return found

    def facts_of(self, clip: str) -> list[dict[str, Any]]:
        """The labelled clues of all questions about a clip."""
        return self._facts.get(clip, [])


@dataclass(frozen=True)
class RunData:
    folder: Path
    recipe: dict[str, Any]  # empty when there is none
    recipe_text: str
    manifest: dict[str, Any]
    log: list[dict[str, Any]]
    evaluations: list[Evaluation]
    card: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.recipe.get("name", self.folder.name))


def read_run(folder: Path) -> RunData:
    """Raises DataError when there is nothing to report, or a file cannot be read."""
    folder = Path(folder).absolute()
    found = sorted(path for path in (folder / "evaluation").glob("*") if finished(path))
    evaluations = [_evaluation(path) for path in found]
    log = list(read_log(folder / "logging.jsonl"))
    if not evaluations and not log:
        what = "a run folder without a finished evaluation or a training log" if folder.is_dir() else "missing"
        raise DataError(
            f"{folder}: {what}, so there is nothing to report. Give the folder of a run, such as runs/quickstart-..."
        )
    text = _text(folder / "recipe.yaml") or _text(folder / "model" / "recipe.yaml")
    manifest = read_manifest(folder) if finished(folder) else {}
    card = evaluations[0].manifest.get("card", {}) if evaluations else {}
    return RunData(folder, yaml.safe_load(text) or {} if text else {}, text, manifest, log, evaluations, card)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _evaluation(folder: Path) -> Evaluation:
    results, manifest = (_json(folder / name) for name in ("results.json", "manifest.json"))
    return Evaluation(folder.name, results, list(read_log(folder / "samples.jsonl")), manifest)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}. Delete {path.parent} and evaluate again.") from error


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a JSONL file, none when there is no file; a last line that a killed process left half written is no line."""
    *lines, _ = _text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from None


@dataclass(frozen=True)
class Account:
    """What went into one prepared set and what became of it. `problem`: why it cannot be said."""

    split: str
    name: str
    folder: Path
    manifest: Mapping[str, Any]
    problem: str = ""


def accounts(run: RunData) -> list[Account]:
    """Of every prepared set of the run, by split; the test sets' from their evaluations where the run has no manifest."""
    addresses = run.manifest.get("addresses", {})
    folders = [(split, _prepared_folder(run) / name) for split in SPLITS for name in addresses.get(split, ())]
    if not folders:
        folders = [("test", Path(one.manifest["prepared"])) for one in run.evaluations]
    return [_account(split, folder) for split, folder in dict.fromkeys(folders)]


def _prepared_folder(run: RunData) -> Path:
    """Where the run's prepared sets lie: beside those it was evaluated on, else in the recipe's store."""
    if run.evaluations:
        return Path(run.evaluations[0].manifest["prepared"]).parent
    return storage.local_folder(run.recipe.get("store", "."), run.recipe.get("mirror", ".")) / "prepared"


def _account(split: str, folder: Path) -> Account:
    try:
        manifest = read_manifest(folder)
    except CluenetError as error:
        return Account(split, folder.name, folder, {}, str(error))
    dataset = manifest.get("dataset", {})
    name = f"{dataset.get('name', folder.name)} {dataset.get('split', '')}".strip()
    return Account(split, name, folder, manifest)
