"""One small training of both stages, for all tests that only look at it."""

from __future__ import annotations

import pytest

from cluenet.train.export import save_final_model
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.stages import train
from helpers.training import recipe


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    of_training = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50)]
    return {"train": of_training, "validation": [prepared_set(folder / "v", clips=5, seed=100)]}


@pytest.fixture(scope="session")
def both(tmp_path_factory, sets):
    """A run of both stages and its final model."""
    run = tmp_path_factory.mktemp("run")
    settings = recipe(stage1={"steps": 6}, stage2={"steps": 4, "accumulate": 2}, validation={"every": 2})
    first = train(settings, sets, run)
    second = train(settings, sets, run, stage="stage2", init=first, address="b" * 20)
    policy = {"sampler": {"name": "uniform"}}
    model = save_final_model(
        settings, run=run, base=base_folder(), checkpoint=second, frame_policy=policy, address="c" * 20
    )
    return settings, run, first, second, model
