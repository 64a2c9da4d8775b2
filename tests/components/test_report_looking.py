"""What a report asks the model again agrees with what evaluation measured on its own ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluenet.prepared import PreparedSet
from cluenet.report.looking import OTHERWISE, Asked, Seen, look, model_of
from cluenet.report.sources import RunData, read_run
from helpers.reports import evaluated_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run(evaluated_runs(tmp_path_factory.mktemp("looking")) / "run")


@pytest.fixture(scope="module")
def asked(run: RunData) -> list[Asked]:
    (evaluation,) = run.evaluations
    prepared = PreparedSet(Path(evaluation.manifest["prepared"]))
    examples = {example.id: example for example in prepared.examples()}
    return [
        Asked(sample, examples[sample["id"]], lambda clip=sample["clip"]: prepared.frames(clip))
        for sample in evaluation.samples
    ]


@pytest.fixture(scope="module")
def seen(run: RunData, asked: list[Asked]) -> list[Seen]:
    found = look(run.folder / "model", asked, run.evaluations[0].manifest)
    assert all(isinstance(one, Seen) for one in found.values()), found
    return [found[one.sample["id"]] for one in asked]


def test_with_its_clues_the_options_have_the_probabilities_of_evaluation(asked: list[Asked], seen: list[Seen]) -> None:
    for one, found in zip(asked, seen, strict=True):
        assert found.shown == pytest.approx(np.exp(one.sample["option_logprobs"]).tolist(), abs=1e-4)


def test_without_a_clue_they_are_those_of_the_deletion_curve(asked: list[Asked], seen: list[Seen]) -> None:
    met = 0
    for one, found in zip(asked, seen, strict=True):
        tests = one.sample["faithfulness"]
        if tests["order"]:
            first = found.changed[tests["order"][0]]
            assert first[one.sample["prediction"]] == pytest.approx(tests["deletion"][1], abs=1e-4)
            met += 1
    assert met > 5


def test_with_a_dropped_clue_they_are_those_behind_no_filter(asked: list[Asked], seen: list[Seen]) -> None:
    met = 0
    for one, found in zip(asked, seen, strict=True):
        dropped = [place for place, clue in enumerate(one.sample["clues"]) if not clue["kept"]]
        if len(dropped) == 1:
            values = found.changed[dropped[0]]
            assert values.index(max(values)) == one.sample["diagnostics"]["filter"]["unfiltered"]
            met += 1
    assert met > 5


def test_attention_is_largest_where_the_box_is(asked: list[Asked], seen: list[Seen]) -> None:
    for one, found in zip(asked, seen, strict=True):
        assert len(found.attention) == len(one.sample["clues"])
        for clue, attention in zip(one.sample["clues"], found.attention):
            blocks_BN = np.reshape(attention, (found.shape[0], -1))
            assert blocks_BN.sum() == pytest.approx(1, abs=1e-3)
            assert found.block_seconds[int(blocks_BN.sum(1).argmax())] == pytest.approx(clue["box"]["seconds"])


def test_a_question_that_is_answered_otherwise_is_not_shown(run: RunData, asked: list[Asked]) -> None:
    sample = asked[0].sample
    words = [{**clue, "words": ["x"]} for clue in sample["clues"]]
    for changed in ({**sample, "clues": words}, {**sample, "prediction": (sample["prediction"] + 1) % 3}):
        again = Asked(changed, asked[0].example, asked[0].frames)
        (found,) = look(run.folder / "model", [again], run.evaluations[0].manifest).values()
        assert found == OTHERWISE


def test_a_large_model_is_asked_only_when_it_is_wanted(run: RunData, monkeypatch: pytest.MonkeyPatch) -> None:
    (evaluation,) = run.evaluations
    large = RunData(
        run.folder, run.recipe, run.recipe_text, {}, [], run.evaluations, {"backbone_parameters": 2_000_000_000}
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder, reason = model_of(large, evaluation, "auto")
    assert folder is None
    assert "2,000 M parameters" in reason
    assert f"cluenet report {run.folder} --look always" in reason
    assert model_of(large, evaluation, "always") == (run.folder / "model", "")
    assert model_of(run, evaluation, "auto") == (run.folder / "model", "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert model_of(large, evaluation, "auto") == (run.folder / "model", "")


def test_the_evaluated_model_is_recognised_by_its_address(run: RunData, asked: list[Asked]) -> None:
    manifest = {**run.evaluations[0].manifest, "model_address": "another"}
    (found,) = look(run.folder / "model", asked[:1], manifest).values()
    assert "another model than was evaluated" in found
