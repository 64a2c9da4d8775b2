"""Scores a model on prepared test sets with Ray Data: batches in, samples out, results by a pure function of the samples.

    <out>/<dataset>-<split>/
        results.json     see `evaluate.results`, `evaluate.harness`
        samples.jsonl    see `evaluate.samples`, sorted by question id
        official/        what the benchmark's own script or server takes, for datasets that have such files
        manifest.json    address, model, prepared set, frame policy, timings, versions; written last. `seconds_per_question`
                         is what row `own` takes in batches, video encoding included, decoding and other rows not
        answered/        while it is under way: see `evaluate.kept`

The same model and test set give the same bytes of results.json and samples.jsonl, whatever the number of workers, and however
often the evaluation was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluenet.evaluate.batches import Asking, BatchEvaluator, BatchResult, opened
from cluenet.evaluate.files import read_results
from cluenet.evaluate.output import write
from cluenet.evaluate.sets import TestSet, Work, check_policy, test_sets
from cluenet.features import plain_paths
from cluenet.progress import Progress
from cluenet.recipe import Recipe


def evaluate(
    recipe: Recipe, *, model_folder: Path, prepared: Sequence[Path], out: Path, progress: type[Progress] = Progress,
    features: Mapping[Path, Path] | None = None, allow_policy_mismatch: bool = False, local: bool = False,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Evaluate the model on every prepared set; returns {name of the set: its results.json}, in their order.

    out: gets a folder per set, `<run>/evaluation` for a run. progress: makes the progress display. features: folders of the
    sets' features by this model's vision tower, where they are made. local: in this process, without Ray.

    A set that is evaluated already under the same address is read, not done again; batches that an interrupted evaluation
    has answered are not asked again; sets are written as they end.

    Raises CheckpointError when the model cannot be loaded, or saw other frames in training than the prepared ones
    (`allow_policy_mismatch` allows it, and results say so), DataError for a damaged set, ClusterError, StorageError.
    """
    model_folder, out = Path(model_folder).absolute(), Path(out).absolute()
    sets = test_sets(recipe, model_folder, prepared, out, plain_paths(features or {}))
    for test in sets:
        if not allow_policy_mismatch:
            check_policy(model_folder, test.prepared)
    todo = [test for test in sets if not test.finished]
    if todo:
        _Evaluation(recipe, model_folder, local=local).run(todo, progress)
    return {test.name: read_results(test.folder) for test in sets}


class _Evaluation:
    """One model on some sets."""

    def __init__(self, recipe: Recipe, model_folder: Path, *, local: bool):
        self.recipe, self.model_folder, self.local = recipe, model_folder, local
        self.asking = Asking.of(recipe)

    def run(self, todo: Sequence[TestSet], progress: type[Progress]) -> None:
        total = sum(test.prepared.num_questions for test in todo)
        with progress("Evaluating", total=total, unit="questions") as display:
            display.advance(sum(test.resume() for test in todo))
            work = [
                (test, number) for test in todo for number in range(len(test.batches)) if number not in test.results
            ]
            for test in todo:
                self._write_if_complete(test)
            for index, result in self._results(work) if work else ():
                test, number = work[index]
                test.add(number, result)
                display.advance(len(result.samples))
                self._write_if_complete(test)

    def _write_if_complete(self, test: TestSet) -> None:
        if test.complete:
            write(self.recipe, self.model_folder, test, asdict(self.asking))

    def _results(self, work: Work) -> Iterator[tuple[int, BatchResult]]:
        """(place in `work`, result), in the order in which they are done."""
        if not self.local:
            from cluenet.evaluate.workers import results_of

            return results_of(self.recipe, self.model_folder, work, self.asking)
        evaluator = BatchEvaluator(self.model_folder, self.asking)
        return (
            (index, evaluator(opened(str(test.prepared.folder), test.features), test.batches[number]))
            for index, (test, number) in enumerate(work)
        )
