"""The scheduler of grids, with a pool that only pretends: order, room, retries, failures, and what is left after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluenet.folders import atomic_write_json
from cluenet.grid.account import Account, Outcome
from cluenet.grid.demand import MOST_AT_ONCE, Demand, whole_of
from cluenet.grid.execute import Execution
from cluenet.grid.graph import Graph, Key, Node
from cluenet.recipe import Recipe
from helpers.evaluation import Silent
from helpers.pools import Pretended


def recipe(workers: int = 1, gpu: float = 0.0) -> Recipe:
    stage = {"clips_per_batch": 4}
    return Recipe.from_dict(
        {"train": {"workers": workers, "resources": {"gpu": gpu}, "stage1": stage, "stage2": stage}}
    )


def node(step: str, name: str, *needs: Key, workers: int = 1, gpu: float = 0.0, finished: bool = False) -> Node:
    return Node((step, name), recipe(workers, gpu), "evaluation", Path("nowhere"), needs, finished)


def graph(*nodes: Node) -> Graph:
    return Graph({one.key: one for one in nodes}, {}, {})


def run(found: Graph, pool: Pretended, folder: Path, retries: int = 0) -> Execution:
    execution = Execution(found, pool, Account(folder), retries=retries)
    execution.run("test", Silent)
    return execution


def test_each_step_runs_once_after_those_it_needs(tmp_path):
    first, second = ("stage1", "a"), ("stage2", "b")
    pool = Pretended(Demand(8, 0))
    done = run(graph(node("stage1", "a"), node("stage2", "b", first), node("stage2", "c", first), node("evaluate", "d", first, second)), pool, tmp_path)  # fmt: skip
    assert pool.started[0] == "a"
    assert sorted(pool.started) == ["a", "b", "c", "d"]
    assert pool.started.index("d") > pool.started.index("b")
    assert (done.failed, done.waiting, done.running) == ({}, {}, {})
    assert (Silent.last.done, Silent.last.total) == (4, 4)


def test_finished_steps_are_not_done_again(tmp_path):
    pool = Pretended(Demand(1, 0))
    run(graph(node("stage1", "a", finished=True), node("stage2", "b", ("stage1", "a"))), pool, tmp_path)
    assert pool.started == ["b"]


def test_as_many_at_once_as_there_is_room_for(tmp_path):
    pool = Pretended(Demand(2, 0))
    run(graph(*(node("stage1", name) for name in "abcde")), pool, tmp_path)
    assert pool.most == Demand(2, 0)


def test_shares_of_a_gpu_run_side_by_side(tmp_path):
    pool = Pretended(Demand(16, 1))
    run(graph(*(node("stage1", name, gpu=0.25) for name in "abcdef")), pool, tmp_path)
    assert pool.most == Demand(4, 1)


def test_two_trainers_that_need_the_whole_cluster_run_one_after_the_other(tmp_path):
    pool = Pretended(Demand(2, 0))
    run(graph(node("stage1", "a", workers=2), node("stage1", "b", workers=2), node("stage1", "c")), pool, tmp_path)
    assert pool.most.cpu <= 2
    assert sorted(pool.started) == ["a", "b", "c"]


def test_data_are_prepared_before_anything_is_trained(tmp_path):
    """Preparing takes all CPUs, and would wait until nothing else is left to start."""
    pool = Pretended(Demand(2, 0))
    run(graph(node("stage1", "a"), node("stage1", "b"), node("prepare", "c"), node("stage1", "d", ("prepare", "c"))), pool, tmp_path)  # fmt: skip
    assert pool.started[0] == "c"


def test_a_failed_step_is_tried_again(tmp_path):
    pool = Pretended(Demand(1, 0), {"a": 1})
    done = run(graph(node("stage1", "a"), node("stage2", "b", ("stage1", "a"))), pool, tmp_path, retries=1)
    assert pool.started == ["a", "a", "b"]
    assert not done.failed
    account = json.loads((tmp_path / "steps.json").read_text())
    assert account["stage1 a"] == {
        "seconds": 1.0, "error": "", "exit_code": 0, "details": "", "paused": False, "attempts": 2,
    }  # fmt: skip


def test_seconds_of_a_paused_step_add_up_and_those_of_failures_do_not(tmp_path):
    account, key = Account(tmp_path), ("stage1", "a")
    for outcome in (Outcome(2.0, "it broke", 2), Outcome(3.0, paused=True), Outcome(4.0, paused=True), Outcome(5.0)):
        account.add(key, outcome, 1)
    assert json.loads((tmp_path / "steps.json").read_text())["stage1 a"]["seconds"] == 12.0


def test_what_needs_a_failed_step_is_left_and_the_others_go_on(tmp_path):
    pool = Pretended(Demand(1, 0), {"a": 9})
    done = run(graph(node("stage1", "a"), node("stage2", "b", ("stage1", "a")), node("stage1", "c"), node("stage2", "d", ("stage1", "c"))), pool, tmp_path, retries=2)  # fmt: skip
    assert sorted(pool.started) == ["a", "a", "a", "c", "d"]
    assert list(done.failed) == [("stage1", "a")]
    assert Account(tmp_path).error(("stage1", "a")) == "it broke"
    assert Account(tmp_path).error(("stage1", "c")) == ""


def test_a_stop_ends_what_runs_and_the_account_is_kept(tmp_path, monkeypatch):
    pool = Pretended(Demand(2, 0))
    monkeypatch.setattr(pool, "ended", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(graph(node("stage1", "a"), node("stage1", "b")), pool, tmp_path)
    assert pool.stopped


def test_an_account_of_another_grid_is_read_again(tmp_path):
    atomic_write_json(tmp_path / "steps.json", {"stage1 a": {"seconds": 3.0, "error": "old", "attempts": 1}})
    run(graph(node("stage1", "a")), Pretended(Demand(1, 0)), tmp_path)
    assert Account(tmp_path).error(("stage1", "a")) == ""


def test_a_cluster_that_grows_nobody_knows_how_far_has_room():
    """Its head has no CPU when a grid starts."""
    whole = whole_of(None)
    assert whole == Demand(MOST_AT_ONCE, MOST_AT_ONCE)
    assert Demand(8, 8).fits(whole)
    assert not Demand(1, 0).fits(whole_of({"node:a": 1.0}))
