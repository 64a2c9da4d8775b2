"""Counted operations against counting by hand; counting leaves training alone and is kept over a kill."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cluenet.folders import read_manifest, write_manifest
from cluenet.report.facts import Step, steps
from cluenet.run import Run
from cluenet.train import stepping
from cluenet.train.flops import counted
from cluenet.train.group import Group
from cluenet.train.trackers import JsonLines
from cluenet.train.trainer import train_stage
from helpers.models import base_folder
from helpers.prepared import prepared_set
from helpers.training import lines_of, recipe, weights_of

SETTINGS = recipe(
    stage1={"steps": 4, "clips_per_batch": 2, "accumulate": 2}, checkpoint={"every": 2}, validation={"every": 4},
    report_to=[],
)  # fmt: skip


def test_linear_layers_are_two_operations_per_multiplication():
    """Forward m x k by k x n is 2mnk; backward as much again for the weights, and for the inputs but for the first layer's."""
    m, k, n, o = 5, 7, 11, 3
    first, second, x = nn.Linear(k, n), nn.Linear(n, o), torch.randn(m, k)
    assert counted(lambda: second(F.gelu(first(x)))) == 2 * m * k * n + 2 * m * n * o
    result = second(F.gelu(first(x)))
    assert counted(result.sum().backward) == 2 * m * k * n + 2 * (2 * m * n * o)
    assert counted(lambda: torch.no_grad()(first)(x)) == 2 * m * k * n


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_is_counted(masked):
    """Scores and values are 2 products forward; backward makes the scores again and has 4 products of its own."""
    b, h, q, k, d = 2, 3, 16, 24, 8
    query, key, value = (torch.randn(b, h, length, d, requires_grad=True) for length in (q, k, k))
    mask = torch.rand(b, 1, q, k) < 0.9 if masked else None

    def attention():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    assert counted(attention) == 2 * 2 * b * h * q * k * d
    assert counted(attention().sum().backward) == 5 * 2 * b * h * q * k * d


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=3), prepared_set(folder / "b", clips=2, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=1, seed=100)]}


def train(sets, run):
    return train_stage(
        SETTINGS, "stage1", run=run, base=base_folder(), prepared=sets, init=None, address="a" * 20,
        say=lambda line: None, local=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(sets, folder)
    return folder


def test_the_manifest_holds_the_operations_of_a_step_and_of_all(run, sets):
    """At least those of the language model: 6 per parameter and token (Kaplan et al. 2020, arXiv 2001.08361)."""
    manifest = read_manifest(run / "stage1")
    assert manifest["flops"] == 4 * manifest["flops_per_step"]
    parameters = sum(value for name, value in manifest["model"].items() if name.endswith("parameters"))
    tokens = 2 * 2 * 20  # clips x questions x at least so many tokens of their prompts
    assert 0.5 < manifest["flops_per_step"] / (6 * parameters * tokens) < 20


def test_counting_changes_nothing(run, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(stepping, "counted", lambda work: 7)
    assert weights_of(train(sets, tmp_path)) == weights_of(run / "stage1" / read_manifest(run / "stage1")["best"])
    assert lines_of(tmp_path) == lines_of(run)
    assert read_manifest(tmp_path / "stage1")["flops"] == 4 * 2 * 7


def test_a_resumed_stage_keeps_what_was_counted(run, sets, tmp_path, monkeypatch):
    original = JsonLines.write

    def write(self, line):
        if line["step"] > 2:
            raise KeyboardInterrupt
        original(self, line)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JsonLines, "write", write)
        train(sets, tmp_path)
    monkeypatch.setattr(stepping, "counted", lambda work: pytest.fail("counted again"))
    train(sets, tmp_path)
    names = ("flops_per_step", "flops")
    assert all(read_manifest(tmp_path / "stage1")[name] == read_manifest(run / "stage1")[name] for name in names)


def test_all_workers_count(run, sets, tmp_path, monkeypatch):
    """As if there were another one that does the same."""
    monkeypatch.setattr(Group, "sum", lambda self, values: 2 * values.cpu())
    train(sets, tmp_path)
    both = read_manifest(tmp_path / "stage1")["flops_per_step"]
    assert both == 2 * read_manifest(run / "stage1")["flops_per_step"]


def test_the_run_and_its_report_show_them(tmp_path):
    run = Run(SETTINGS)
    run.plan.__dict__["run"] = tmp_path
    write_manifest(tmp_path / "stage1", {"flops_per_step": 30, "flops": 12_000, "shared_from": "other-1"})
    with run._timed("stage1"):
        pass
    assert run.account.steps()["stage1"] == {
        "seconds": 0.0, "attempts": 1, "flops_per_step": 30, "flops": 12_000, "shared_from": "other-1",
    }  # fmt: skip
    assert run.account.steps()["stage2"] == {"seconds": 0.0, "attempts": 0}
    assert "flops" not in (tmp_path / "steps.json").read_text()
    shown = steps(SimpleNamespace(manifest={"steps": run.account.steps()}))
    assert shown == [Step("stage1", 0.0, 12_000, 30, "other-1")]  # stage 2 took no time
