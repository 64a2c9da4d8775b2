"""A step of training with every shipped recipe that makes its own small model: the demo's two, the longer one, the controls."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from cluenet.model.optimizers import optimizers_of
from cluenet.recipe import load
from helpers.environments import ROOT
from helpers.models import clip, example, tiny_model

FOLDER = ROOT / "recipes"
NAMES = [
    "quickstart",
    "quickstart_baseline",
    "clueworld_strong",
    *(f"controls/{p.stem}" for p in FOLDER.glob("controls/*")),
]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_step_of_each_stage(name: str):
    recipe = load(FOLDER / Path(name).with_suffix(".yaml"))
    sections = {part: value for part, value in recipe.to_dict()["model"].items() if part != "backbone"}
    model = tiny_model(**sections).train()
    batch = model.collate([(clip(0), [example(0), example(1)])], seed=0, shuffle_options=True)
    stages = [stage for stage in (recipe.train.stage1, recipe.train.stage2) if stage.steps]
    assert stages
    for stage in stages:
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimizers = optimizers_of(model, stage)
        loss = model(batch, stage=stage, seed=0, progress=0.5)["loss"]
        assert math.isfinite(optimizers.step(loss, factor=1.0))
        assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())
