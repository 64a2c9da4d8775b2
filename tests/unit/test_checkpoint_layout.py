"""What a checkpoint of a stage holds, and weights that must never become one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from cluenet.errors import CheckpointError
from cluenet.train import checkpoints
from cluenet.train.checkpoints import TrainerState, layout_of, load_weights, save

STATE = TrainerState("a" * 20, "stage1", step=3)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head, self.norm = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.LayerNorm(4)
        self.head.weight = self.words.weight
        self.register_buffer("threshold", torch.tensor(0.5))
        self.vlm = SimpleNamespace(hf=None)  # a backbone without adapters


def written(model, folder):
    layout, weights = layout_of(model), model.state_dict()
    return save(folder, STATE, layout, {name: weights[name] for name in layout.shapes}, [], keep=2)


def test_tied_weights_are_held_once_and_come_back(tmp_path):
    model, other = Tied(), Tied()
    layout = layout_of(model)
    assert layout.aliases == {"words.weight": "head.weight"}
    assert set(layout.shapes) == {"head.weight", "norm.weight", "norm.bias", "threshold"}
    file = written(model, tmp_path) / checkpoints.WEIGHTS
    with safe_open(file, "pt") as found:
        assert (set(found.keys()), found.metadata()) == (set(layout.shapes), layout.aliases)
    load_weights(other, file)
    assert torch.equal(other.words.weight, model.words.weight)
    assert other.head.weight is other.words.weight


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("norm.weight", torch.tensor([1.0, float("nan"), float("inf"), 0.0]), "not finite in 2 of 4 places"),
        ("norm.weight", torch.empty(0), r"of shape \(0,\), not \(4,\)"),
        ("threshold", None, "missing"),
    ],
)
def test_a_weight_that_is_lost_or_not_finite_is_never_written(tmp_path, name, value, what):
    model = Tied()
    first, layout = written(model, tmp_path), layout_of(model)
    entries = model.state_dict()
    weights = {key: entries[key] for key in layout.shapes if key != name} | ({} if value is None else {name: value})
    later = TrainerState("a" * 20, "stage1", step=4)
    with pytest.raises(CheckpointError, match=rf"checkpoint-000004: not saved, because the weight {name} is {what}"):
        save(tmp_path, later, layout, weights, [], keep=1)
    assert checkpoints.newest(tmp_path, "a" * 20)[0] == first
    assert [path.name for path in sorted(tmp_path.iterdir())] == [first.name, "state.json"]


def test_a_file_without_a_needed_weight_is_refused(tmp_path):
    file = written(Tied(), tmp_path) / checkpoints.WEIGHTS
    model = Tied()
    model.register_buffer("extra", torch.zeros(2))
    with pytest.raises(CheckpointError, match="missing or not of this model: extra"):
        load_weights(model, file)
