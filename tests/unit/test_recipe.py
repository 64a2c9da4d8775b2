"""Recipes: merging, overrides, and every problem at once with its place, value and remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from cluenet.errors import RecipeError
from cluenet.recipe import Recipe, load, merge


def write(path: Path, **values: object) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def problems(values: dict[str, object]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(values)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_to_dict_and_from_dict_are_inverse():
    recipe = Recipe.from_dict({"data": {"train": ["clueworld"], "sampler": {"name": "uniform", "frames": 4}}})
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe


def test_a_recipe_survives_pickling():
    recipe = Recipe.from_dict({"data": {"train": [{"name": "clueworld", "videos": 3}]}})
    assert pickle.loads(pickle.dumps(recipe)) == recipe


# ------------------------------------------------------------------------------------------------- what is wrong


def test_unknown_keys_are_met_with_the_nearest_one():
    found = problems({"trian": {}, "train": {"stage1": {"steps": 1, "stpes": 2}}})
    assert found["trian"].startswith("unknown key. Did you mean 'train'?")
    assert found["train.stage1.stpes"].startswith("unknown key. Did you mean 'steps'?")


def test_an_unknown_key_of_a_component_lists_its_settings():
    found = problems({"data": {"sampler": {"name": "uniform", "frame": 3}}})
    assert found == {"data.sampler.frame": "unknown key. Did you mean 'frames'? Known: frames."}


def test_an_unknown_name_lists_the_registered_ones():
    message = problems({"data": {"sampler": "unifrom"}})["data.sampler"]
    assert message.startswith("no sampler named 'unifrom'. Did you mean 'uniform'? Registered: ")


def test_a_wrong_setting_in_a_list_of_components_has_its_index():
    found = problems({"data": {"train": ["clueworld", {"name": "clueworld", "videos": 0}]}})
    assert found == {"data.train.1.videos": "Input should be greater than or equal to 1, not 0"}


def test_all_problems_are_reported_at_once():
    found = problems({
        "seed": -1,
        "name": "a b",
        "data": {"codec": "gif", "sampler": {"name": "uniform", "frames": "many"}},
        "train": {"workers": 0, "stage1": {"lr": 0}},
        "model": {"backbone": {"name": "hf_vlm"}},
        "nonsense": 1,
    })  # fmt: skip
    assert set(found) == {
        "seed", "name", "data.codec", "data.sampler.frames", "train.workers", "train.stage1.lr", "nonsense",
        "model.backbone.path",
    }  # fmt: skip
    assert "'lossless' or 'jpeg95'" in found["data.codec"]
    assert "not 'gif'" in found["data.codec"]
    assert found["model.backbone.path"] == "is required"


def test_settings_that_contradict_each_other():
    assert "not both" in problems({"data": {"size": {"height": 64}}})["data.size"]
    assert "carry no gradient" in problems({"train": {"stage1": {"steps": 1, "coupled": True}}})["train.stage1"]
    uneven = problems({"train": {"workers": 3, "stage1": {"steps": 1, "clips_per_batch": 4}}})["train"]
    assert "not a multiple of workers x accumulate = 3" in uneven


def test_values_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        Recipe.from_dict({}).seed = 3


# ------------------------------------------------------------------------------------------------- files


def test_maps_merge_deeply_and_lists_are_replaced(tmp_path: Path):
    write(tmp_path / "base.yaml", seed=3, data={"train": ["clueworld"], "sampler": {"name": "uniform", "frames": 4}})
    write(tmp_path / "middle.yaml", extends="base.yaml", data={"sampler": {"frames": 8}})
    (tmp_path / "deep").mkdir()
    top = write(
        tmp_path / "deep/top.yaml", extends="../middle.yaml", data={"train": [{"name": "clueworld", "videos": 7}]}
    )
    recipe = load(top)
    assert recipe.seed == 3
    assert recipe.data.sampler.to_dict() == {"name": "uniform", "frames": 8}
    assert [entry.videos for entry in recipe.data.train] == [7]


def test_a_component_under_another_name_starts_afresh():
    base = {"sampler": {"name": "uniform", "frames": 4}}
    assert merge(base, {"sampler": {"name": "fps", "rate": 2}}) == {"sampler": {"name": "fps", "rate": 2}}
    assert merge(base, {"sampler": "fps"}) == {"sampler": "fps"}
    assert merge(base, {"sampler": {"name": "uniform"}}) == base
    assert base == {"sampler": {"name": "uniform", "frames": 4}}


def test_recipes_that_extend_each_other_in_a_circle(tmp_path: Path):
    write(tmp_path / "a.yaml", extends="b.yaml")
    write(tmp_path / "b.yaml", extends="a.yaml")
    with pytest.raises(RecipeError, match="in a circle"):
        load(tmp_path / "a.yaml")


def test_a_missing_file_lists_the_ones_there(tmp_path: Path):
    write(tmp_path / "near.yaml", seed=1)
    with pytest.raises(RecipeError, match=r"no such file.*near\.yaml"):
        load(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"), [("- a\n- b\n", "a map of settings, not list"), ("a: [", "as YAML"), ("", "NoneType")]
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, message: str):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


# ------------------------------------------------------------------------------------------------- overrides


def test_overrides_reach_every_kind_of_place(tmp_path: Path):
    path = write(tmp_path / "r.yaml", data={"train": ["clueworld"], "sampler": "uniform"})
    recipe = load(path, [
        "train.stage1.steps=7", "data.sampler.frames=5", "data.train.0.videos=9", "seed=4", "data.fallback_reader=null",
        "data.size={height: 64, width: 32}", "evaluate.rows=[own]", "model.reasoner=direct",
    ])  # fmt: skip
    assert recipe.train.stage1.steps == 7
    assert recipe.data.sampler.frames == 5
    assert recipe.data.train[0].videos == 9
    assert recipe.seed == 4
    assert recipe.data.fallback_reader is None
    assert (recipe.data.size.height, recipe.data.size.width) == (64, 32)
    assert recipe.evaluate.rows == ("own",)
    assert recipe.model.reasoner.name == "direct"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stage1.steps", "is not key.path=value"),
        ("=3", "is not key.path=value"),
        ("data.train.4.videos=1", "data.train.4: no such setting"),
        ("data.train.first.videos=1", "data.train.first: no such setting"),
        ("seed=[", "seed: cannot be set to '['"),
        ("seed.deep.er=1", "no such setting"),
    ],
)
def test_an_override_that_leads_nowhere(tmp_path: Path, override: str, message: str):
    path = write(tmp_path / "r.yaml", seed=1, data={"train": ["clueworld"]})
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        load(path, [override])


def test_an_override_with_an_unknown_key_is_met_with_the_nearest_one(tmp_path: Path):
    path = write(tmp_path / "r.yaml", seed=1)
    with pytest.raises(RecipeError, match=r"train\.stage1\.stpes: unknown key. Did you mean 'steps'"):
        load(path, ["train.stage1.steps=1", "train.stage1.stpes=2"])
