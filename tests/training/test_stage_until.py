"""`until`: a stage ends as soon as validation is good enough, says so, and does the same after a kill. The real loop, in this
process."""

from __future__ import annotations

import pytest

from cluenet.errors import RecipeError
from cluenet.folders import finished, read_manifest
from cluenet.train import checkpoints, loop
from helpers.models import example
from helpers.prepared import prepared_set
from helpers.stages import interrupted, train
from helpers.training import lines_of, recipe, weights_of

SCORES = {2: 0.3, 4: 0.5, 6: 0.8, 8: 0.9}
"""What validation finds after these steps."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=2, seed=100)]}


@pytest.fixture(autouse=True)
def scores(monkeypatch):
    original = loop._Loop._validate

    def validate(self):
        found = {"accuracy": SCORES[self.state.step], "oracle_accuracy": 0.99, "questions": 4}
        self.validator.count, self.validator.scores = lambda model: None, lambda counts: found
        return original(self)

    monkeypatch.setattr(loop._Loop, "_validate", validate)


def settings(until, *, stage="stage1", steps=8, **validation):
    every = {"validation": {"every": 2, **validation}, "checkpoint": {"every": 3, "keep": 1}}
    return recipe(**{stage: {"steps": steps, "until": until}}, **every)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_stage_ends_when_validation_is_good_enough_and_says_why(sets, tmp_path, stage):
    said: list[str] = []
    handed_on = train(settings(0.75, stage=stage), sets, tmp_path, stage=stage, said=said)
    assert handed_on.name == "checkpoint-000006"
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5, 6]
    manifest, why = read_manifest(tmp_path / stage), f"accuracy 0.8 reached train.{stage}.until = 0.75"
    assert (manifest["steps"], manifest["stopped_early"], manifest["stopped_because"]) == (6, True, why)
    assert said[-1] == f"{stage}: ended after 6 of 8 steps: {why}"


def test_the_metric_is_that_of_validation_and_the_bound_is_included(sets, tmp_path):
    train(settings(0.99, metric="oracle_accuracy"), sets, tmp_path)
    assert read_manifest(tmp_path / "stage1")["steps"] == 2


@pytest.mark.parametrize("until", [None, 0.9])
def test_a_stage_that_needs_all_steps_did_not_stop_early(sets, tmp_path, until):
    said: list[str] = []
    train(settings(until), sets, tmp_path, said=said)
    manifest = read_manifest(tmp_path / "stage1")
    assert (manifest["steps"], manifest["stopped_early"], manifest["stopped_because"]) == (8, False, None)
    assert not any("ended" in line for line in said)


def test_patience_says_why_too(sets, tmp_path, monkeypatch):
    monkeypatch.setitem(SCORES, 4, 0.2)
    train(settings(None, patience=1), sets, tmp_path)
    assert read_manifest(tmp_path / "stage1")["stopped_because"] == (
        "1 validations without a better one (train.validation.patience)"
    )


@pytest.mark.parametrize("after", [2, 5])
def test_a_killed_stage_ends_where_it_would_have(sets, tmp_path, after):
    whole = train(settings(0.75), sets, tmp_path / "whole")
    interrupted(settings(0.75), sets, tmp_path / "cut", after=after)
    cut = train(settings(0.75), sets, tmp_path / "cut")
    assert (cut.name, weights_of(cut)) == (whole.name, weights_of(whole))
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    assert read_manifest(tmp_path / "cut" / "stage1")["stopped_because"] is not None


def test_killed_after_the_trigger_it_takes_no_further_step(sets, tmp_path):
    def killed(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_manifest", killed)
        train(settings(0.75), sets, tmp_path)
    assert not finished(tmp_path / "stage1")
    assert checkpoints.steps_of(tmp_path / "stage1") == [6]
    train(settings(0.75), sets, tmp_path)
    assert len(lines_of(tmp_path)) == read_manifest(tmp_path / "stage1")["steps"] == 6


def test_without_answers_to_validate_on_it_is_refused_before_the_model_is_built(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "build_model", lambda *_, **__: pytest.fail("a worker was started"))
    counts = {"answer": 0, "chain": 4, "clues": 4}
    hidden = prepared_set(tmp_path / "h", clips=2, make=lambda i: example(i, answer=None), labels=counts)
    for validation in ([hidden], []):
        with pytest.raises(
            RecipeError, match=r"train\.stage1\.until: is 0\.75, but no validation question has a known"
        ):
            train(settings(0.75), {**sets, "validation": validation}, tmp_path / "run")
