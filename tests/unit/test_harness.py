"""The keys of results.json that lmms-eval has too, and the position of a question among its dataset's rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluenet.contracts import Dataset
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.sets import model_address
from cluenet.prepared import write_quarantine
from cluenet.records import Quarantined
from cluenet.registry import register
from cluenet.verdicts import accuracy_share
from helpers.evaluation import Silent, model_folder, prepared_test, recipe


class Fake(Dataset):
    version = 3

    @classmethod
    def measures(cls, verdicts):
        return [accuracy_share("Acc@C", [one for one in verdicts if one.type == "who"])]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """(results, samples, model) of 5 questions and 2 lost rows, which are the 1st and the 4th of the dataset."""
    monkeypatch.setitem(register.dataset._classes, "fake", Fake)
    settings = recipe(evaluate={"bootstrap": 100, "seed": 7})
    model = model_folder(tmp_path / "model", recipe=settings)
    prepared = prepared_test(tmp_path / "0123", recipe=settings, clips=2, lost=2)
    lost = [Quarantined(f"lost{row}", "fake", f"lost{row}.mp4", "missing", "no such file", row=row) for row in (0, 3)]
    write_quarantine(prepared, lost)
    found = evaluate(
        settings, model_folder=model, prepared=[prepared], out=tmp_path / "out", progress=Silent, local=True
    )
    return found["fake-test"], read_samples(tmp_path / "out/fake-test"), model


def test_results_have_the_harness_keys(made) -> None:
    results, samples, model = made
    right = sum(sample["correct"] for sample in samples)
    table = results["results"]["fake-test"]
    assert table["alias"] == "fake-test"
    assert table["acc,none"] == pytest.approx(right / 7, abs=1e-6)
    assert table["acc_answered,none"] == pytest.approx(right / 5, abs=1e-6) == results["accuracy"]["overall"]["value"]
    assert table["acc_stderr,none"] >= 0
    assert table["Acc@C,none"] == results["benchmark"]["all"]["Acc@C"]["value"]
    assert table["Acc@C_stderr,none"] == results["benchmark"]["all"]["Acc@C"]["stderr"]
    assert results["n-samples"] == {"fake-test": {"original": 7, "effective": 7}}
    assert results["n-shot"] == {"fake-test": 0}
    assert results["versions"] == {"fake-test": 3}
    assert results["higher_is_better"] == {"fake-test": {"acc": True, "acc_answered": True, "Acc@C": None}}
    assert results["configs"]["fake-test"]["output_type"] == "multiple_choice"
    assert results["configs"]["fake-test"]["frame_policy"]["sampler"] == {"name": "uniform", "frames": 4}
    config = results["config"]
    assert (config["model_args"], config["random_seed"], config["shuffles"]) == (model_address(model), 7, 1)
    assert (config["batch_size"], config["bootstrap_iters"], config["gen_kwargs"], config["limit"]) == (
        64,
        100,
        {},
        None,
    )


def test_samples_know_their_row_and_have_the_words(made) -> None:
    _, samples, _ = made
    by_row = sorted(samples, key=lambda sample: sample["doc_id"])
    assert [sample["doc_id"] for sample in by_row] == [1, 2, 4, 5, 6]
    assert [sample["id"] for sample in by_row] == [f"0123/{number}" for number in range(5)]
    for sample in samples:
        assert sample["target"] == sample["options"][sample["answer"]]
        assert sample["filtered_resps"] == [sample["options"][sample["prediction"]]]
    json.dumps(samples, allow_nan=False)


def test_standard_errors_are_those_of_the_interval_by_video(made) -> None:
    results, _, _ = made
    low, high = (results["accuracy"]["all"][end] for end in ("low", "high"))
    assert 0 < results["results"]["fake-test"]["acc_stderr,none"] < (high - low)
