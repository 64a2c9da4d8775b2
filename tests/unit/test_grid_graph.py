"""The graph of a grid: every step once, whoever asks for it, after what it needs."""

from __future__ import annotations

import pytest

from cluenet import fingerprint
from cluenet.folders import write_manifest
from cluenet.grid.account import Account, Outcome
from cluenet.grid.brackets import Brackets
from cluenet.grid.cost import costs
from cluenet.grid.demand import Demand, demand_of, in_process
from cluenet.grid.graph import graph_of
from cluenet.grid.tables import plan_dict
from cluenet.planning import Plan
from helpers.grids import FILTERS, grid_of


def test_cells_that_differ_in_stage_2_share_all_before_it(tmp_path):
    counts = graph_of(grid_of(tmp_path, axes=FILTERS, seeds=[0, 1])).counts()
    asked = {step: (found["asked"], found["unique"]) for step, found in counts.items()}
    assert asked == {
        "prepare": (18, 3), "pretrain": (6, 2), "stage1": (6, 2), "stage2": (6, 6), "model": (6, 6), "evaluate": (6, 6),
    }  # fmt: skip


def test_nodes_are_the_different_fingerprints(tmp_path):
    grid = grid_of(tmp_path, axes={**FILTERS, "train.stage1.steps": [4, 5]}, seeds=[0, 1])
    graph, plans = graph_of(grid), [Plan(recipe) for cell in grid.cells for recipe in cell.recipes.values()]
    for stage in ("stage1", "stage2"):
        addresses = {getattr(plan, stage) for plan in plans}
        assert {key[1] for key in graph.nodes if key[0] == stage} == addresses
        assert len(addresses) == {"stage1": 4, "stage2": 12}[stage]
    tests = {fingerprint.evaluation(plan.recipe, plan.stage2, plan.prepared("test")[0].name) for plan in plans}
    assert {key[1] for key in graph.nodes if key[0] == "evaluate"} == tests


def test_steps_come_after_what_they_need(tmp_path):
    graph = graph_of(grid_of(tmp_path, axes=FILTERS))
    seen: set = set()
    for key, node in graph.nodes.items():
        assert set(node.needs) <= seen
        assert node.needs or node.step == "prepare"
        seen.add(key)
    stage2 = [node for node in graph.nodes.values() if node.step == "stage2"]
    assert len({dict(node.needs)["stage1"] for node in stage2}) == 1


def test_utilities_are_shared_too(tmp_path):
    gates = {"model.clue_filter": ["adaptive", {"name": "adaptive", "threshold": 0.4}]}
    offline = {"train.stage2.losses.filter": 0.2, "train.stage2.filter_loss.source": "offline"}
    counts = graph_of(grid_of(tmp_path, axes=gates, set=offline)).counts()
    assert counts["utilities"] == {"asked": 2, "unique": 1, "finished": 0}


def test_cells_that_are_only_scored_in_another_way_train_once(tmp_path):
    graph = graph_of(grid_of(tmp_path, axes={"evaluate.questions_per_batch": [64, 32]}, set={}))
    counts = {step: (found["asked"], found["unique"]) for step, found in graph.counts().items()}
    assert (counts["stage2"], counts["model"], counts["evaluate"]) == ((2, 1), (2, 1), (2, 2))
    scored = [node for node in graph.nodes.values() if node.step == "evaluate"]
    assert scored[0].folder.parent == scored[1].folder.parent
    assert scored[0].folder.name == "evaluation" != scored[1].folder.name


def test_finished_steps_are_found_and_a_new_value_brings_only_its_own(tmp_path):
    small = grid_of(tmp_path, axes={"model.clue_filter": ["keep_all", "random"]})
    for node in graph_of(small).nodes.values():
        folder = node.folder / "clueworld-test" if node.step == "evaluate" else node.folder
        write_manifest(folder, {"address": node.key[1]})
    assert graph_of(small).left() == []
    larger = graph_of(grid_of(tmp_path, axes=FILTERS))
    assert [node.step for node in larger.left()] == ["stage2", "model", "evaluate"]


def test_costs_are_those_measured_before_and_operations(tmp_path):
    grid, account = grid_of(tmp_path, axes=FILTERS), Account(tmp_path / "account")
    graph = graph_of(grid)
    before = {one.step: one for one in costs(graph, account)}
    assert before["stage2"].seconds is None
    assert before["stage2"].left == 3
    assert before["stage2"].teraflop > 0
    first = next(node for node in graph.nodes.values() if node.step == "stage2")
    write_manifest(first.folder, {"address": first.key[1]})
    account.add(first.key, Outcome(12.0), 1)
    after = {one.step: one for one in costs(graph_of(grid), Account(tmp_path / "account"))}
    assert (after["stage2"].left, after["stage2"].seconds) == (2, 24.0)
    assert after["stage2"].teraflop == pytest.approx(before["stage2"].teraflop * 2 / 3)
    assert after["prepare"].teraflop is None
    planned = plan_dict(grid, Brackets(graph), list(after.values()), None)
    assert [run["cell"] for run in planned["runs"]] == [cell.name for cell in grid.cells]


def test_what_a_step_takes(tmp_path):
    whole = Demand(4, 1)
    settings = {"train.workers": 2, "train.resources.cpu": 1.5, "train.resources.gpu": 0.25, "evaluate.threads": 2}
    nodes = {node.step: node for node in graph_of(grid_of(tmp_path, axes=FILTERS, set=settings)).nodes.values()}
    assert {step: demand_of(node, whole) for step, node in nodes.items()} == {
        "prepare": Demand(4, 0), "pretrain": Demand(1.5, 0.25), "stage1": Demand(3, 0.5), "stage2": Demand(3, 0.5),
        "model": Demand(1.5, 0.25), "evaluate": Demand(2, 0.25),
    }  # fmt: skip
    assert {step for step, node in nodes.items() if in_process(node)} == {"pretrain", "model", "evaluate"}
    one = {node.step: node for node in graph_of(grid_of(tmp_path, axes=FILTERS)).nodes.values()}
    assert {step for step, node in one.items() if not in_process(node)} == {"prepare"}


def test_elastic_workers_take_what_there_is(tmp_path):
    settings = {"train.workers": [1, 4], "train.stage1.accumulate": 3, "train.stage2.accumulate": 3,
                "train.stage1.clips_per_batch": 12, "train.stage2.clips_per_batch": 12}  # fmt: skip
    node = next(
        node for node in graph_of(grid_of(tmp_path, axes=FILTERS, set=settings)).nodes.values() if node.step == "stage1"
    )
    assert demand_of(node, Demand(2, 0)) == Demand(2, 0)
