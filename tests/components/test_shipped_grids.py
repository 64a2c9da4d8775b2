"""A step of training with every cell of the shipped grids that has components of its own."""

from __future__ import annotations

import math

import pytest

from cluenet.grid.cells import load
from cluenet.model.optimizers import optimizers_of
from cluenet.recipe import Recipe
from helpers.environments import ROOT
from helpers.models import clip, example, tiny_model

GRIDS = {name: load(ROOT / "recipes" / "ablations" / f"{name}.yaml") for name in ("components", "filters", "pruning")}
CELLS = [(f"{name}: {cell.name}", cell.recipe) for name, grid in GRIDS.items() for cell in grid.cells]


@pytest.mark.parametrize("recipe", [one for _, one in CELLS], ids=[name for name, _ in CELLS])
def test_a_step_of_each_stage(recipe: Recipe):
    sections = {part: value for part, value in recipe.to_dict()["model"].items() if part != "backbone"}
    model = tiny_model(**sections).train()
    batch = model.collate([(clip(0), [example(0), example(1)])], seed=0, shuffle_options=True)
    stages = [stage for stage in (recipe.train.stage1, recipe.train.stage2) if stage.steps]
    assert stages
    for stage in stages:
        optimizers = optimizers_of(model, stage)
        assert math.isfinite(optimizers.step(model(batch, stage=stage, seed=0, progress=0.5)["loss"], factor=1.0))


def test_the_cells_of_pruning_share_their_model():
    """And each keeps other visual tokens."""
    cells = GRIDS["pruning"].cells
    assert len({cell.recipe.model_copy(update={"evaluate": cells[0].recipe.evaluate}).to_yaml() for cell in cells}) == 1
    assert len({cell.evaluation for cell in cells}) == len(cells) == 10
