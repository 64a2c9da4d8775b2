"""An interrupted evaluation goes on where it was, and takes up nothing that it must not (see also tests/distributed)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluenet.evaluate.batches import BatchEvaluator
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.kept import Kept
from helpers.evaluation import Silent, model_folder, prepared_test, recipe

SETTINGS = {"questions_per_batch": 5, "bootstrap": 100, "rows": ["own"]}
QUESTIONS = 12


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a set with 3 batches."""
    folder, asked = tmp_path_factory.mktemp("inputs"), recipe(evaluate=SETTINGS)
    return model_folder(folder / "model", recipe=asked), prepared_test(folder / "0123", recipe=asked)


Run = Callable[..., list[str]]


@pytest.fixture
def run(inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Evaluates; returns the ids of the questions that were asked for it."""

    def evaluated(out: Path, **settings) -> list[str]:
        asked: list[str] = []
        call = BatchEvaluator.__call__

        def counted(self, prepared, parts):
            result = call(self, prepared, parts)
            asked.extend(sample["id"] for sample in result.samples)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(BatchEvaluator, "__call__", counted)
            evaluate(
                recipe(evaluate={**SETTINGS, **settings}), model_folder=inputs[0], prepared=[inputs[1]], out=out,
                progress=Silent, local=True,
            )  # fmt: skip
        return asked

    return evaluated


def _interrupted(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three batches are kept."""
    write, left = Kept.write, [2]

    def failing(self, number, result):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, number, result)

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            run(out)


def test_what_is_kept_for_other_settings_is_not_taken(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(run, tmp_path, monkeypatch)
    assert len(run(tmp_path, seed=1)) == QUESTIONS


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"address": 1}', '{"address": "x", "result": 3}'])
def test_a_damaged_file_counts_as_none(run: Run, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(run, tmp_path, monkeypatch)
    (tmp_path / "fake-test/answered/00000.json").write_text(damage)
    asked = run(tmp_path)
    assert len(asked) == len(set(asked)) < QUESTIONS
    assert len(read_samples(tmp_path / "fake-test")) == QUESTIONS


def test_all_batches_kept_and_no_results_yet_asks_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cluenet.evaluate.evaluator.write", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert run(tmp_path) == []
    assert len(read_samples(tmp_path / "fake-test")) == QUESTIONS


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
