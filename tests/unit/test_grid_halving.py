"""Grids with asha: what starts and pauses when, what is stopped, what a rerun goes on with, and scores of real logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluenet.errors import DataError
from cluenet.folders import atomic_write_text
from cluenet.grid.demand import Demand
from cluenet.grid.graph import Node, graph_of
from cluenet.grid.scores import accuracy_at
from helpers.evaluation import Silent
from helpers.grids import FILTERS
from helpers.halving import Trained, asha_grid, better_and_better, records, worse_and_worse
from helpers.pools import Killed, Training, finish

# ------------------------------------------------------------------------------------------------------ what runs


def test_the_best_half_goes_on_from_every_rung(tmp_path):
    """The first ones are the best: 8, 4, 2 and 1 of them are trained."""
    grid = asha_grid(tmp_path)
    done = Trained(grid, worse_and_worse(grid)).run()
    reached = [[one["cells"][0] for one in records(grid) if one["rung"] == rung] for rung in range(3)]
    names = [cell.name for cell in grid.cells]
    assert reached == [names, names[:4], names[:2]]
    assert done.evaluated() == names[:1]
    assert done.pauses(names[0], "stage1") == [1, 2, 4]
    assert done.pauses(names[0], "stage2") == [None]
    assert done.pauses(names[1], "stage1") == [1, 2, 4]
    assert done.pauses(names[1], "stage2") == []
    assert done.pauses(names[7], "stage1") == [1]
    assert Silent.last.done == Silent.last.total < len(done.graph.nodes)


def test_the_reference_goes_on_whatever_its_rank(tmp_path):
    grid = asha_grid(tmp_path)
    done = Trained(grid, {**worse_and_worse(grid), grid.cells[0].name: 0.0}).run()
    names = [cell.name for cell in grid.cells]
    assert done.evaluated() == names[:2]
    assert done.brackets.stopped((names[0], 0)) == ""
    assert [one["promoted"] for one in records(grid) if one["cells"] == names[:1]] == [True] * 3


def test_with_room_for_all_those_that_wait_go_on_before_new_ones_begin(tmp_path):
    """One place: the second run has come to its rung, so the better one goes on before the third begins."""
    grid = asha_grid(tmp_path)
    done = Trained(grid, worse_and_worse(grid)).run()
    stages = [key for key, _ in done.pool.starts if key[0] == "stage1"]
    first, second = (keys[[key[0] for key in keys].index("stage1")] for keys in list(done.graph.runs.values())[:2])
    assert stages[:3] == [first, first, first]  # the reference waits for nobody
    assert stages[3] == second


def test_every_seed_is_a_bracket_of_its_own(tmp_path):
    grid = asha_grid(tmp_path, seeds=[0, 1])
    done = Trained(grid, worse_and_worse(grid)).run()
    names = [cell.name for cell in grid.cells]
    assert (done.evaluated(0), done.evaluated(1)) == (names[:1], names[:1])
    assert [one["seed"] for one in records(grid)] == [0] * 14 + [1] * 14


def test_cells_that_share_a_stage_share_its_score_and_go_on_together(tmp_path):
    grid = asha_grid(tmp_path, axes={"train.stage1.lr": [0.001, 0.002, 0.003, 0.004], **FILTERS})
    better = {cell.name: 0.8 if "lr=0.003" in cell.name else 0.4 for cell in grid.cells}
    done = Trained(grid, better).run()
    first = [one for one in records(grid) if one["rung"] == 0]
    assert [len(one["cells"]) for one in first] == [3, 3, 3, 3]
    assert [name for name in done.evaluated() if "lr=0.003" in name] == [n for n in better if "lr=0.003" in n]
    shared = next(name for name in better if "lr=0.003" in name)
    assert done.pauses(shared, "stage1") == [1, 2, 4]  # once for all three
    why = done.brackets.stopped(("clue_filter=top_k lr=0.004", 0))
    assert why == "asha, seed 0: 40.0 % after 1 steps, rank 4 of 4, best 2 go on"


def test_a_stage_that_all_share_is_not_stopped_and_pauses_for_nobody_else(tmp_path):
    """Filters differ in stage 2 alone: the only rung where there is a choice is inside it."""
    grid = asha_grid(tmp_path, axes=FILTERS, asha={"first": 5, "eta": 3})
    done = Trained(grid, {cell.name: 0.5 for cell in grid.cells}).run()
    names = [cell.name for cell in grid.cells]
    assert done.pauses(names[0], "stage1") == [None]
    assert done.pauses(names[0], "stage2") == [1, None]
    assert done.evaluated() == names[:1]
    assert done.brackets.stopped((names[2], 0)) == "asha, seed 0: 50.0 % after 5 steps, rank 3 of 3, best 1 go on"


def test_a_failed_run_is_not_compared_and_the_others_go_on(tmp_path):
    grid = asha_grid(tmp_path)
    found = Trained(grid, worse_and_worse(grid))
    broken = next(key for key in found.graph.runs[grid.cells[1].name, 0] if key[0] == "stage1")
    found.pool.fails = {broken[1]: 9}
    found.run()
    assert found.brackets.stopped((grid.cells[1].name, 0)) == ""
    assert found.brackets.stopped((grid.cells[7].name, 0)).endswith("rank 7 of 7, best 3 go on")


def test_a_grid_that_was_killed_goes_on_with_its_decisions(tmp_path):
    """Again and again: nothing that has ended is done twice, and no decision is taken back."""
    grid = asha_grid(tmp_path)
    pool = Killed(Demand(2, 0), {})
    before: list[dict] = []
    qualities, kills = {**worse_and_worse(grid), grid.cells[0].name: 0.0}, 0
    while kills < 100:
        pool.lives = 3
        found = Trained(grid, qualities, pool)
        try:
            found.run()
            break
        except KeyboardInterrupt:
            kills += 1
            now = records(grid) if (grid.folder / "asha.json").exists() else []
            assert all(any(_is_later(old, new) for new in now) for old in before)
            before = now
    assert 5 < kills < 100
    assert len(set(pool.ends)) == len(pool.ends)
    evaluated_cells = found.evaluated()
    assert {cell.name for cell in grid.cells[:2]} <= set(evaluated_cells)
    assert len(evaluated_cells) < len(grid.cells)
    assert not Trained(grid, qualities, pool).halving.has_work()


def _is_later(old: dict, new: dict) -> bool:
    same = all(old[name] == new[name] for name in ("seed", "rung", "address", "accuracy"))
    return same and new["promoted"] >= old["promoted"]


def test_runs_that_are_there_already_are_found(tmp_path):
    """Three whole runs of an earlier grid without asha are ranked with the others, and take no room to come to their rungs."""
    grid = asha_grid(tmp_path)
    pool = Training(Demand(1, 0), {})
    names = [cell.name for cell in grid.cells]
    graph = graph_of(grid)
    for name in names[:3]:
        for key in graph.runs[name, 0]:
            finish(graph.nodes[key])
            pool.reached[key] = float("inf")
    done = Trained(grid, worse_and_worse(grid), pool).run()
    assert not [key for key, _ in pool.starts if key in {key for name in names[:3] for key in graph.runs[name, 0]}]
    assert [len([one for one in records(grid) if one["rung"] == rung]) for rung in range(3)] == [8, 4, 2]
    assert done.pauses(names[3], "stage1") == [1, 2]


def test_decisions_are_of_the_settings_that_they_were_made_with(tmp_path):
    grid = asha_grid(tmp_path)
    Trained(grid, worse_and_worse(grid)).run()
    before = records(grid)
    other = asha_grid(tmp_path, set={"train.stage1.warmup_steps": 1})
    found = Trained(other, better_and_better(other))
    assert not any(one.accuracies for one in found.brackets.by_seed.values())
    found.run()
    assert [one for one in records(other) if one["address"] in {old["address"] for old in before}] == before
    assert len(records(other)) > len(before)


# ------------------------------------------------------------------------------------------- scores of real stages


def stage_of(tmp_path: Path, step: str) -> Node:
    graph = graph_of(asha_grid(tmp_path))
    return next(node for node in graph.nodes.values() if node.step == step)


def log(node: Node, *lines: tuple[str, int, float | None], questions: int = 10) -> None:
    """(stage, step, accuracy) of each line."""
    scores = [
        {} if value is None else {"validation/accuracy": value, "validation/questions": questions}
        for *_, value in lines
    ]
    text = [json.dumps({"stage": stage, "step": step, **score}) for (stage, step, _), score in zip(lines, scores)]
    atomic_write_text(node.folder.parent / "logging.jsonl", "".join(line + "\n" for line in text))


def test_a_score_is_the_last_one_at_or_before_the_step(tmp_path):
    node = stage_of(tmp_path, "stage1")
    assert accuracy_at(node, 2) is None
    log(node, ("stage1", 1, 0.1), ("stage1", 2, 0.2), ("stage1", 3, None), ("stage1", 4, 0.4))
    (node.folder / "checkpoint-000003").mkdir(parents=True)
    assert [accuracy_at(node, step) for step in (1, 2, 3, 4)] == [0.1, 0.2, 0.2, None]
    finish(node)
    assert accuracy_at(node, 4) == 0.4


def test_a_stage_2_that_is_not_validated_yet_has_the_score_of_stage_1(tmp_path):
    node = stage_of(tmp_path, "stage2")
    (node.folder / "checkpoint-000001").mkdir(parents=True)
    log(node, ("stage1", 4, 0.4), ("stage2", 1, None), ("stage2", 2, 0.7))
    assert (accuracy_at(node, 1), accuracy_at(node, 2)) == (0.4, None)
    finish(node)
    assert accuracy_at(node, 2) == 0.7


def test_the_log_of_a_shared_stage_1_is_found_in_the_run_that_trained_it(tmp_path):
    grid = asha_grid(tmp_path, axes=FILTERS, asha={"first": 5, "eta": 3})
    graph = graph_of(grid)
    mine = next(node for node in graph.nodes.values() if node.step == "stage1")
    other = Node(
        mine.key, grid.cells[2].recipe, "evaluation", graph.plans[grid.cells[2].name, 0].run / "stage1", (), False
    )
    log(other, ("stage1", 4, 0.6))
    finish(other)
    assert accuracy_at(graph_of(grid).nodes[mine.key], 4) == 0.6


def test_without_a_known_answer_there_is_no_score(tmp_path):
    node = stage_of(tmp_path, "stage1")
    (node.folder / "checkpoint-000002").mkdir(parents=True)
    log(node, ("stage1", 2, 0.0), questions=0)
    with pytest.raises(DataError, match="no validation question has a known answer"):
        accuracy_at(node, 2)
