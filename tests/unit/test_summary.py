"""What the terminal shows of results.json."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluenet.contracts import Dataset
from cluenet.evaluate.evaluator import evaluate
from cluenet.metrics import biases, filtering
from cluenet.registry import register
from cluenet.summary import score_tables
from cluenet.verdicts import accuracy_share
from helpers.evaluation import Silent, model_folder, prepared_test, recipe


class Fake(Dataset):
    @classmethod
    def measures(cls, verdicts):
        return [accuracy_share("Acc@All", verdicts)]


def shown(results: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(score_tables({"fake-test": results}))
    return console.export_text()


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in text.splitlines() if row.startswith("│")]


def line(text: str, word: str) -> list[str]:
    (found,) = [row for row in rows(text) if any(cell.startswith(word) for cell in row)]
    return found


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """12 questions of 5 clips, 2 of lost videos, in two orders, with all that can be measured."""
    monkeypatch.setitem(register.dataset._classes, "fake", Fake)
    settings = recipe(evaluate={"questions_per_batch": 5, "bootstrap": 100, "faithfulness": True, "shuffles": 2})
    model = model_folder(tmp_path / "model", recipe=settings)
    prepared = prepared_test(tmp_path / "0123", recipe=settings, lost=2)
    found = evaluate(
        settings, model_folder=model, prepared=[prepared], out=tmp_path / "out", progress=Silent, local=True
    )
    return found["fake-test"]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def test_all_that_was_measured_is_printed(results: dict[str, Any]) -> None:
    text = shown(results)
    overall, spread = results["accuracy"]["overall"], results["shuffles"]["accuracy"]
    assert next(row for row in rows(text) if row[1] == "all types") == [
        "fake-test", "all types", "12", percent(overall["value"]), f"{percent(overall['low'])} .. {percent(overall['high'])}",
        f"{percent(spread['mean'])} ± {percent(spread['std'])}",
    ]  # fmt: skip
    on_all, over_orders = results["accuracy"]["all"], results["shuffles"]["all"]
    shown_all = line(text, "all types, what could not be asked is wrong")
    assert shown_all[2:4] == ["14", percent(on_all["value"])]
    assert shown_all[-1] == f"{percent(over_orders['mean'])} ± {percent(over_orders['std'])}"
    found, answered = (results["benchmark"][name]["Acc@All"] for name in ("all", "answered"))
    assert line(text, "Acc@All") == [
        "Acc@All", "14", percent(found["value"]), f"{percent(found['low'])} .. {percent(found['high'])}", "12",
        percent(answered["value"]), f"{percent(results['shuffles']['benchmark']['all']['Acc@All']['mean'])} ± "
        f"{percent(results['shuffles']['benchmark']['all']['Acc@All']['std'])}",
    ]  # fmt: skip
    for block, module in (("biases", biases), ("filter", filtering)):
        lines = list(module.headlines(results[block]))
        assert lines, block
        for words, unit, estimate, beside in lines:
            interval = f"{percent(estimate['low'])} .. {percent(estimate['high'])}"
            likely = "" if beside is None else percent(beside)
            assert [words, str(estimate["n"]), percent(estimate["value"]), interval, likely, unit] in rows(text)


def test_what_was_not_measured_is_not_there(results: dict[str, Any]) -> None:
    plain = {
        name: value for name, value in results.items() if name not in ("shuffles", "faithfulness", "biases", "filter")
    }
    plain["accuracy"] = {**plain["accuracy"], "all": plain["accuracy"]["overall"]}
    text = shown({**plain, "benchmark": None})
    for word in ("orders", "could not be asked", "benchmark", "clues", "filter", "seeing"):
        assert word not in text
    lost = {"all": results["benchmark"]["all"], "answered": {}}
    assert line(shown({**results, "benchmark": lost}), "Acc@All")[4:6] == ["0", "-"]
    same = {"all": results["benchmark"]["all"], "answered": results["benchmark"]["all"]}
    assert "n answered" not in shown({**plain, "benchmark": same})
