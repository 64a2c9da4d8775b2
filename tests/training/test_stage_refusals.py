"""What a stage refuses, and what it says before it starts."""

from __future__ import annotations

import pytest

from cluenet.errors import CheckpointError, CluenetError, DataError, RecipeError, SupervisionError
from cluenet.recipe import Recipe
from cluenet.train.trackers import read_lines
from helpers.prepared import prepared_set
from helpers.stages import train
from helpers.training import recipe


def test_nothing_to_learn_from_is_said_before_the_model_is_built(tmp_path, sets, monkeypatch):
    bare = prepared_set(tmp_path / "bare", clips=4, labels={"answer": 0, "chain": 0, "clues": 0, "boxes": 0})
    monkeypatch.setattr("cluenet.train.loop.build_model", lambda *_, **__: pytest.fail("a worker was started"))
    with pytest.raises(SupervisionError, match="stage1 has nothing to learn from"):
        train(recipe(), {**sets, "train": [bare, bare]}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_taught_is_said(sets, tmp_path):
    said: list[str] = []
    train(recipe(stage1={"steps": 1}), sets, tmp_path, said=said)
    assert said[0] == "stage1: answer x 1: 27 of 27 questions have labels"


def test_an_unknown_metric_is_refused(sets, tmp_path):
    with pytest.raises(
        RecipeError, match=r"train\.validation\.metric: 'acuracy' is not measured.*Did you mean 'accuracy'"
    ):
        train(recipe(validation={"metric": "acuracy"}), sets, tmp_path)


def test_a_loss_that_is_no_number_stops_the_stage(sets, tmp_path):
    with pytest.raises(
        CluenetError, match=r"stage1: \w+ is nan at step \d+; .* Lower train\.stage1\.lr \(now 1e\+30\)"
    ):
        train(recipe(stage1={"lr": 1e30, "optimizer": "adamw", "warmup_steps": 0}), sets, tmp_path)
    assert all(line["loss"] == line["loss"] for line in read_lines(tmp_path / "logging.jsonl"))


def test_a_damaged_prepared_set_is_named(tmp_path, sets):
    damaged = prepared_set(tmp_path / "damaged", clips=3)
    (damaged / "clips" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"damaged/clips/part-00000\.parquet"):
        train(recipe(), {**sets, "train": [damaged, sets["train"][1]]}, tmp_path / "run")


def test_weights_of_another_model_are_refused(sets, tmp_path, both):
    _, _, first, *_ = both
    values = recipe().to_dict()
    values["model"]["clue_extractor"]["slots"] = 3
    with pytest.raises(CheckpointError, match="does not fit the model of the recipe"):
        train(Recipe.from_dict(values), sets, tmp_path, init=first)
