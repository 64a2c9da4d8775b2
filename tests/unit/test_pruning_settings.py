"""`evaluate.pruning` and `serve.pruning`: how they are written, what they make stale, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cluenet import fingerprint
from cluenet.config.pruning import KvSelect, NoPruning, TwoPass, pruning_of
from cluenet.errors import RecipeError
from cluenet.model.checkpoint import check_pruning
from cluenet.recipe import Recipe, overridden
from helpers.evaluation import NO_CLUES, model_folder, recipe

SEES_VIDEO = {"model": {"reasoner": "clue_chain"}}


def with_overrides(*overrides: str, **values) -> Recipe:
    return overridden({**SEES_VIDEO, **values}, list(overrides), file="a.yaml")


def addresses(found: Recipe) -> list[str]:
    stage1 = fingerprint.stage1(found, "base", ["train"], [])
    stage2 = fingerprint.stage2(found, stage1)
    return [stage1, stage2, fingerprint.evaluation(found, stage2, "test")]


def test_it_is_written_as_a_name_or_with_options() -> None:
    assert with_overrides().evaluate.pruning == NoPruning()
    assert with_overrides("evaluate.pruning=kv_select").evaluate.pruning == KvSelect(keep=0.25, by="clues")
    found = with_overrides("evaluate.pruning=two_pass", "evaluate.pruning.keep=0.1", "evaluate.pruning.by=uniform")
    assert found.evaluate.pruning == TwoPass(keep=0.1, by="uniform")
    assert Recipe.from_dict(found.to_dict()) == found
    assert pruning_of(found.evaluate.pruning.model_dump(mode="json")) == found.evaluate.pruning


@pytest.mark.parametrize("change", ["keep=0.5", "by=random", "by=attention", "seed=3", "name=kv_select"])
def test_it_makes_the_evaluation_stale_and_no_training(change: str) -> None:
    plain = addresses(with_overrides())
    pruned = addresses(with_overrides("evaluate.pruning=two_pass"))
    other = addresses(with_overrides("evaluate.pruning=two_pass", f"evaluate.pruning.{change}"))
    assert plain[:2] == pruned[:2] == other[:2]
    assert len({plain[2], pruned[2], other[2]}) == 3
    assert addresses(with_overrides("serve.pruning=two_pass")) == plain


@pytest.mark.parametrize(
    ("tokens", "keep", "count"), [(128, 0.1, 13), (128, 0.25, 32), (10, 0.25, 3), (10, 0.01, 1), (7, 1.0, 7)]
)
def test_the_nearest_number_of_tokens_is_kept_and_never_none(tokens: int, keep: float, count: int) -> None:
    assert TwoPass(keep=keep).count(tokens) == count
    assert NoPruning().count(tokens) == tokens


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"name": "two_pas"}, "two_pass"),
        ({"name": "two_pass", "keep": 0}, r"evaluate\.pruning\.keep"),
        ({"name": "two_pass", "by": "luck"}, "clues.*attention.*random.*uniform"),
        ({"name": "two_pass", "layer": 3}, "layer 3 is read with by: attention only, and by is clues"),
        ({"name": "none", "keep": 0.5}, r"evaluate\.pruning\.keep"),
        ({"keep": 0.5}, r"none, two_pass, kv_select"),
    ],
)
def test_what_cannot_be_is_an_error_with_its_path(pruning: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**SEES_VIDEO, "evaluate": {"pruning": pruning}})


def test_faithfulness_is_measured_before_the_whole_video() -> None:
    with pytest.raises(RecipeError, match=r"faithfulness.*pruning is kv_select.*Set pruning to none"):
        with_overrides("evaluate.faithfulness=true", "evaluate.pruning=kv_select")


@pytest.mark.parametrize(
    ("model", "path"), [({"reasoner": "evidence"}, r"evaluate\.pruning: is"), (NO_CLUES, r"evaluate\.pruning\.by: is")]
)
def test_a_recipe_whose_answers_cannot_be_pruned_is_refused(model: dict, path: str) -> None:
    with pytest.raises(RecipeError, match=path):
        with_overrides("evaluate.pruning=two_pass", model=model)


def test_a_model_that_is_served_is_asked_before_it_is_loaded(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", recipe=recipe())
    check_pruning(folder, NoPruning(), section="serve")
    with pytest.raises(
        RecipeError, match=r"model: 1 problem\n  serve\.pruning: is two_pass, but the reasoner 'evidence'"
    ):
        check_pruning(folder, TwoPass(), section="serve")


def test_sections_say_what_is_unknown() -> None:
    with pytest.raises(ValidationError):
        pruning_of({"name": "two_pass", "kep": 1})
