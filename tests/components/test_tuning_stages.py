"""Both stages of a run with adapters, in this process: what checkpoints hold, that a run goes on exactly, and the model folder."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluenet.errors import CheckpointError
from cluenet.model.build import build_model
from cluenet.model.checkpoint import load_model
from cluenet.train import checkpoints
from cluenet.train.export import save_final_model
from cluenet.train.trainer import train_stage
from helpers.models import base_folder, clip, example
from helpers.prepared import prepared_set
from helpers.training import lines_of, recipe, weights_of

STAGE = {"optimizer": "adamw", "lr": 0.003, "accumulate": 2}
TRAIN = {
    "tuning": {"name": "lora", "r": 4, "projector": True}, "gradient_checkpointing": True, "checkpoint": {"every": 1, "keep": 9},
    "stage1": {"steps": 3, **STAGE}, "stage2": {"steps": 2, **STAGE, "lrs": {"gate": 0.01, "projector": 0.001}},
}  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=5, seed=100)]}


def train(settings, sets, run, stage="stage1", init=None):
    return train_stage(
        settings, stage, run=run, base=base_folder(), prepared=sets, init=init, address=stage * 3, local=True,
        say=lambda line: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(sets, tmp_path_factory):
    run, settings = tmp_path_factory.mktemp("run"), recipe(**TRAIN)
    first = train(settings, sets, run)
    second = train(settings, sets, run, "stage2", first)
    model = save_final_model(
        settings, run=run, base=base_folder(), checkpoint=second, frame_policy={}, address="c" * 20
    )
    return settings, run, first, second, model


def test_checkpoints_hold_what_is_trained_and_not_the_backbone(both):
    settings, _, first, second, _ = both
    model = build_model(settings.model, base_folder(), seed=0, train=settings.train)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    for folder in (first, second):
        assert wanted == set(load_file(folder / checkpoints.WEIGHTS)) & {name for name, _ in model.named_parameters()}
    assert not any("base_layer" in name or "original_module" in name for name in load_file(first / checkpoints.WEIGHTS))


def test_a_checkpoint_without_one_of_them_is_refused(both, tmp_path):
    settings, _, first, *_ = both
    weights = load_file(first / checkpoints.WEIGHTS)
    name = next(name for name in weights if ".lora_B." in name)
    save_file({other: value for other, value in weights.items() if other != name}, tmp_path / "model.safetensors")
    model = build_model(settings.model, base_folder(), seed=0, train=settings.train)
    with pytest.raises(CheckpointError, match=f"missing or not of this model: {name}"):
        checkpoints.load_weights(model, tmp_path / "model.safetensors")


def test_an_interrupted_run_goes_on_bit_for_bit(both, sets, tmp_path):
    """Also without gradient checkpointing, which changes no gradient."""
    settings, run, first, second, _ = both
    assert train(settings, sets, tmp_path) == tmp_path / "stage1" / first.name
    stage = tmp_path / "stage1"
    (stage / "manifest.json").unlink()
    for step in checkpoints.steps_of(stage)[1:]:
        shutil.rmtree(stage / checkpoints.name_of(step))
    values = settings.to_dict()
    values["train"]["gradient_checkpointing"] = False
    again = train(type(settings).from_dict(values), sets, tmp_path)
    assert weights_of(again) == weights_of(first)
    assert weights_of(train(settings, sets, tmp_path, "stage2", again)) == weights_of(second)
    assert [line["loss"] for line in lines_of(tmp_path)] == [line["loss"] for line in lines_of(run)]


def test_the_model_folder_is_the_best_checkpoint(both):
    settings, _, _, second, folder = both
    model = build_model(settings.model, base_folder(), seed=0, train=settings.train)
    checkpoints.load_weights(model, second / checkpoints.WEIGHTS)
    loaded = load_model(folder)
    batch = model.collate([(clip(0), [example(0), example(1)])], seed=0, shuffle_options=False)
    for mine, theirs in zip(model.eval().predict(batch), loaded.predict(batch)):
        assert torch.equal(torch.tensor(mine.option_probabilities), torch.tensor(theirs.option_probabilities))
    card = json.loads((folder / "model_config.json").read_text())["card"]
    assert card["tuning"] == "lora"
    assert card["trainable_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert card["trainable_parameters"] < card["backbone_parameters"] + card["clue_parameters"]
