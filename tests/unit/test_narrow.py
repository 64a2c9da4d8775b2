"""`cluenet evaluate` with --limit, --split and --shuffles: the recipe that it then works on, and where results go."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluenet import cli
from cluenet.errors import RecipeError
from cluenet.evaluate.narrow import evaluation_folder, narrowed
from cluenet.run import Run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    test = [
        {"name": "clueworld", "split": "test", "videos": 3},
        {"name": "clueworld", "split": "hallucination", "max_samples": 5},
    ]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": {"train": ["clueworld"], "test": test}}))
    return path


def test_without_options_the_recipe_is_as_written(path: Path) -> None:
    plain = narrowed(path, ["evaluate.bootstrap=200"])
    assert plain.evaluate.bootstrap == 200
    assert [(one.split, one.max_samples) for one in plain.data.test] == [("test", None), ("hallucination", 5)]
    assert evaluation_folder(None, None) == "evaluation"


def test_every_test_entry_is_cut_and_nothing_else(path: Path) -> None:
    cut = narrowed(path, limit=8)
    assert [(one.split, one.max_samples) for one in cut.data.test] == [("test", 8), ("hallucination", 5)]
    assert cut.data.train == narrowed(path).data.train
    assert evaluation_folder(8, None) == "evaluation-first8"


def test_another_split_and_several_orders(path: Path) -> None:
    found = narrowed(path, split="validation", shuffles=5)
    assert {one.split for one in found.data.test} == {"validation"}
    assert found.data.test[0].videos == 3
    assert found.evaluate.shuffles == 5
    assert evaluation_folder(3, "validation") == "evaluation-validation-first3"


def test_an_unknown_split_is_named_with_those_that_there_are(path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        narrowed(path, split="tset")
    for part in ("data.test.0.split", "'test'", "'validation'", "not 'tset'"):
        assert part in str(error.value)


def test_the_command_line_scores_what_is_left_into_a_folder_of_its_own(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def results_of(self, model: Path, out: Path, name: str):
        asked.append((self.recipe, model, out / name))
        return {}

    monkeypatch.setattr(Run, "results_of", results_of)
    options = ["--limit", "4", "--split", "validation", "--shuffles", "2", "--out", str(tmp_path / "out")]
    assert cli.call(["evaluate", str(path), "evaluate.bootstrap=200", "--model", str(tmp_path), *options]) == 0
    ((recipe, model, folder),) = asked
    assert recipe == narrowed(path, ["evaluate.bootstrap=200"], limit=4, split="validation", shuffles=2)
    assert (model, folder) == (tmp_path, tmp_path / "out" / "evaluation-validation-first4")
    assert cli.call(["evaluate", str(path), "--model", str(tmp_path), "--split", "tset"]) == 2
    assert "data.test.0.split" in capsys.readouterr().err
