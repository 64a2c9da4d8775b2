"""The YAML of a grid: which cells it makes, and everything that is wrong with it, at once, at its place in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluenet.errors import RecipeError
from cluenet.grid.cells import Grid, load
from cluenet.grid.spec import is_grid
from cluenet.recipe import Recipe

BASE = {
    "name": "small",
    "data": {"sampler": {"name": "uniform"}, "train": ["clueworld"], "test": [{"name": "clueworld", "split": "test"}]},
    "model": {"clue_filter": "keep_all"},
    "train": {"stage1": {"steps": 4}, "stage2": {"steps": 2, "losses": {"filter": 0.0}}},
}


@pytest.fixture
def grid(tmp_path: Path):
    """Writes a grid beside its base recipe and reads it."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**BASE, "runs": str(tmp_path / "runs")}))

    def read(*overrides: str, **values: Any) -> Grid:
        file = tmp_path / "grid.yaml"
        file.write_text(yaml.safe_dump({"version": 1, "name": "g", "base": "base.yaml", **values}))
        return load(file, overrides)

    return read


@pytest.fixture
def problems(grid):
    """The problems of a grid, by place."""

    def find(*overrides: str, **values: Any) -> dict[str, str]:
        with pytest.raises(RecipeError) as caught:
            grid(*overrides, **values)
        return {problem.path: problem.message for problem in caught.value.problems}

    return find


FILTERS = {"model.clue_filter": ["keep_all", "random", {"name": "top_k", "k": 2}]}


def test_a_product_has_every_combination_the_first_values_first(grid):
    made = grid(axes={**FILTERS, "train.stage2.steps": [2, 3]}, seeds=[3, 4])
    assert [cell.name for cell in made.cells] == [
        f"clue_filter={name} steps={steps}" for name in ("keep_all", "random", "top_k (k 2)") for steps in (2, 3)
    ]
    last = made.cells[-1].recipes
    assert [(seed, recipe.seed, recipe.model.clue_filter.k, recipe.train.stage2.steps) for seed, recipe in last.items()] == [
        (3, 3, 2, 3), (4, 4, 2, 3)
    ]  # fmt: skip
    assert made.folder.parts[-3:] == ("runs", "grids", "g")


def test_one_factor_has_the_reference_and_every_other_value_alone(grid):
    made = grid(axes={**FILTERS, "train.stage2.steps": [2, 3]}, mode="one_factor")
    assert [cell.name for cell in made.cells] == [
        "reference",
        "clue_filter=random",
        "clue_filter=top_k (k 2)",
        "steps=3",
    ]
    assert [cell.recipe.train.stage2.steps for cell in made.cells] == [2, 2, 2, 3]


def test_one_factor_at_a_time_values_of_two_axes_may_set_the_same(grid, problems):
    paired = {"filter": [{"label": "as it is"}, {"label": "chance", "set": {"model.clue_filter": "random"}}],
              "more": [{"label": "no"}, {"label": "yes", "set": {"model.clue_filter.keep": 0.3}}]}  # fmt: skip
    assert "one `paired` axis" in problems(paired=paired)["paired.more"]
    paired["more"][1]["set"] = {"model.clue_filter": "top_k"}
    assert len(grid(paired=paired, mode="one_factor").cells) == 3


def test_a_cell_is_the_recipe_that_the_command_line_would_make(grid, tmp_path):
    from cluenet.recipe import load as load_recipe

    made = grid("train.stage1.lr=0.5", axes=FILTERS, set={"train.workers": 1}, seeds=[7])
    wanted = load_recipe(
        tmp_path / "base.yaml",
        ["model.clue_filter={name: top_k, k: 2}", "train.workers=1", "seed=7", "train.stage1.lr=0.5"],
    )
    assert made.cells[-1].recipes[7] == wanted


def test_settings_that_vary_together_are_one_axis(grid):
    made = grid(paired={"filter": [
        {"label": "as it is"},
        {"label": "taught", "set": {"model.clue_filter": "adaptive", "train.stage2.losses.filter": 0.2}},
    ]})  # fmt: skip
    assert [cell.name for cell in made.cells] == ["filter=as it is", "filter=taught"]
    assert made.cells[0].recipe == Recipe.from_dict(made.cells[0].recipe.to_dict() | {"name": "small"})
    assert made.cells[1].recipe.train.stage2.losses.filter == 0.2


def test_named_values(grid):
    made = grid(
        axes={"model.clue_filter": ["keep_all", {"label": "by chance", "value": {"name": "random", "keep": 0.3}}]}
    )
    assert made.cells[1].name == "clue_filter=by chance"
    assert made.cells[1].recipe.model.clue_filter.keep == 0.3


@pytest.mark.parametrize("wanted", ["random", {"name": "top_k", "k": 2}, "top_k (k 2)"])
def test_excluded_cells_are_left_out_by_label_or_value(grid, wanted):
    made = grid(axes={**FILTERS, "train.stage2.steps": [2, 3]},
                exclude=[{"model.clue_filter": wanted, "train.stage2.steps": 3}])  # fmt: skip
    assert len(made.cells) == 5
    label = wanted if isinstance(wanted, str) else "top_k (k 2)"
    assert f"clue_filter={label} steps=3" not in [cell.name for cell in made.cells]


# ------------------------------------------------------------------------------------------------- what is wrong


def test_all_problems_at_once_each_at_its_place(problems, tmp_path):
    found = problems(
        axes={
            "model.clue_fliter": ["keep_all", "random"], "model.reasoner": ["evidence", "evidnce"],
            "train.stage2.steps": [2, -1], "model.clue_extractor": ["none"],
        },
        exclude=[{"model.resoner": "direct"}, {"train.stage2.steps": 17}],
    )  # fmt: skip
    assert "Did you mean 'clue_filter'?" in found["axes.model.clue_fliter.0"]
    assert "Did you mean 'evidence'?" in found["axes.model.reasoner.1"]
    assert "greater than or equal to 0, not -1" in found["axes.train.stage2.steps.1"]
    assert "has 1 value, so that nothing varies" in found["axes.model.clue_extractor"]
    assert "Did you mean 'model.reasoner'?" in found["exclude.0.model.resoner"]
    assert "no value 17" in found["exclude.1.train.stage2.steps"]


def test_the_message_names_file_place_and_value(grid, tmp_path):
    with pytest.raises(
        RecipeError, match=r"grid.yaml: 1 problem\n  axes.model.clue_filter.1: model.clue_filter: no clue_filter"
    ):
        grid(axes={"model.clue_filter": ["keep_all", "randm"]})


@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({}, "axes", "nothing varies"),
        ({"axes": {"model.clue_filter": []}}, "axes.model.clue_filter", "at least 1"),
        ({"axes": {"model.clue_filter": ["random", "random"]}}, "axes.model.clue_filter", "has 'random' twice"),
        ({"axes": {"seed": [0, 1]}}, "axes.seed", "Write `seeds: [0, 1, 2]`"),
        ({"axes": FILTERS, "seeds": [1, 1]}, "seeds", "a seed twice"),
        ({"axes": FILTERS, "set": {"seed": 1}}, "set.seed", "is decided by `seeds`"),
        ({"axes": FILTERS, "set": {"model.clue_filter": "top_k"}}, "set.model.clue_filter", "is varied by axes.model"),
        ({"axes": {**FILTERS, "model.clue_filter.keep": [0.1, 0.2]}}, "axes.model.clue_filter.keep", "one `paired` axis"),
        ({"axes": FILTERS, "exclude": [{"model.clue_filter": "keep_all"}]}, "exclude.0", "leaves out the reference"),
        ({"axes": {**FILTERS, "train.stage2.steps": [2, 3]}, "exclude": [{"model.clue_filter": "random"}]},
         "axes.model.clue_filter.1", "is in no cell"),
        ({"axes": {"evaluate.shuffles": [1, 2]}}, "axes.evaluate.shuffles.1", "asked other questions"),
        ({"axes": {"data.test.0.videos": [200, 100]}}, "axes.data.test.0.videos.1", "asked other questions"),
        ({"axes": {"data.sampler.frames": [16, 8]}}, "axes.data.sampler.frames.1", "set `across_frames: true`"),
        ({"axes": {"model.clue_filter": ["keep_all", {"label": "same", "value": {"name": "keep_all"}}]}}, "", "are the same"),
        ({"axes": {"train.max_failures": [1, 2]}}, "", "what differs has no effect"),
        ({"axes": FILTERS, "set": {"train.stage1.stesp": 3}}, "set.train.stage1.stesp", "Did you mean 'steps'?"),
        ({"axes": FILTERS, "base": "bsae.yaml"}, "base", "no such file"),
        ({"axes": FILTERS, "modes": "product"}, "modes", "Did you mean 'mode'?"),
        ({"axes": {**FILTERS, "train.stage2.lrs.gate": [None, 0.1]}}, "axes.train.stage2.lrs.gate.1", "has no gate to teach"),
    ],
)  # fmt: skip
def test_what_is_refused(problems, values, place, words):
    found = problems(**values)
    assert words in found[place], found


@pytest.mark.parametrize(
    ("override", "place"), [("seed=1", "seeds"), ("model.clue_filter=top_k", "axes.model.clue_filter")]
)
def test_the_command_line_cannot_set_what_varies(problems, override, place):
    assert place in problems(override, axes=FILTERS)


def test_a_setting_that_needs_another_one_is_told_with_its_cell(problems):
    found = problems(axes={"model.clue_filter": ["adaptive", "random"]},
                     set={"train.stage2.losses.filter": 0.2, "train.stage2.lrs.gate": 0.1})  # fmt: skip
    assert "cell 'clue_filter=random': train.stage2.lrs.gate" in found[""]


def test_other_frames_are_compared_on_request(grid):
    assert len(grid(axes={"data.sampler.frames": [16, 8]}, across_frames=True).cells) == 2


def test_scoring_may_differ_and_has_folders_of_its_own(grid):
    cells = grid(axes={"evaluate.questions_per_batch": [64, 32, 16], "model.clue_filter": ["keep_all", "random"]}).cells
    folders = {cell.name: cell.evaluation for cell in cells}
    assert folders["questions_per_batch=64 clue_filter=keep_all"] == "evaluation"
    assert folders["questions_per_batch=64 clue_filter=random"] == "evaluation"
    assert (
        folders["questions_per_batch=32 clue_filter=random"] == folders["questions_per_batch=32 clue_filter=keep_all"]
    )
    assert len(set(folders.values())) == 3


def test_grids_and_recipes_are_told_apart():
    assert is_grid({"base": "r.yaml"})
    assert is_grid({"axes": {}})
    assert not is_grid(BASE)
