"""Grids with asha: how it is told what was stopped, what a dry run says before, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cluenet import cli
from cluenet.errors import RecipeError
from cluenet.grid import running
from cluenet.grid.bounds import bounds_of, require_places
from cluenet.grid.cells import Grid, load
from cluenet.grid.graph import graph_of
from helpers.environments import ROOT
from helpers.grids import FILTERS, evaluated
from helpers.halving import Trained, asha_grid, better_and_better, worse_and_worse


def told(tmp_path: Path) -> Grid:
    """A grid of two seeds that came to its end, with the results of those that did."""
    grid = asha_grid(tmp_path, seeds=[0, 1])
    done = Trained(grid, worse_and_worse(grid)).run()
    evaluated(grid, lambda cell, seed: [True, False, True] * 8 if cell.name in done.evaluated(seed) else None)
    return grid


def test_stopped_cells_are_told_in_words_and_left_out_of_all_means(tmp_path):
    grid = told(tmp_path)
    content, _ = running.write(grid)
    states = [cell["state"] for cell in content["cells"]]
    assert states == ["finished", *["stopped"] * 7]
    worst = content["cells"][-1]
    whys = [f"asha, seed {seed}: 20.0 % after 1 steps, rank 8 of 8, best 4 go on" for seed in (0, 1)]
    assert [run["why"] for run in worst["runs"]] == whys
    assert worst["sets"] == {}
    assert content["asha"]["rungs"][0] == {"seed": 0, "steps": 1, "reached": 8, "promoted": 4}
    last = list(csv.DictReader((grid.folder / "grid.csv").read_text().splitlines()))[-1]
    assert (last["state"], last["seeds"], last["accuracy"], last["why"]) == ("stopped", "0", "", "; ".join(whys))
    page = (grid.folder / "grid.html").read_text()
    for words in (*whys, "A cell that was stopped has no result and is not comparable", "not on the test sets"):
        assert words in page
    running.check_compared(content)  # to be stopped is no failure


def test_a_cell_that_was_stopped_with_some_seeds_has_the_mean_of_the_others(tmp_path):
    grid = told(tmp_path)
    second = grid.cells[1].name
    evaluated(grid, lambda cell, seed: [True] * 24 if (cell.name, seed) == (second, 1) else None)
    content, _ = running.write(grid)
    cell = content["cells"][1]
    assert (cell["state"], [run["state"] for run in cell["runs"]]) == ("partial", ["stopped", "finished"])
    assert cell["sets"]["clueworld-test"]["accuracies"] == [1.0]
    assert '<td class="n">1/2</td>' in (grid.folder / "grid.html").read_text()


def test_the_table_is_written_again_from_the_folders_and_the_decisions(tmp_path, capsys):
    grid = told(tmp_path)
    running.write(grid)
    files = [grid.folder / name for name in ("grid.json", "grid.csv", "grid.html", "asha.json")]
    before = [file.read_bytes() for file in files]
    for file in files[:3]:
        file.unlink()
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--table"]) == 0
    assert [file.read_bytes() for file in files] == before
    assert "selected by accuracy on validation questions" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_waits_for_room_is_not_stopped(tmp_path):
    grid = asha_grid(tmp_path)
    found = Trained(grid, better_and_better(grid))
    for place in list(found.graph.runs)[:4]:
        found.pool.reached[next(key for key in found.graph.runs[place] if key[0] == "stage1")] = 1
    found.halving.refresh()
    content, _ = running.write(grid)
    assert [cell["state"] for cell in content["cells"]][:5] == ["not run", "stopped", "not run", "not run", "not run"]


def test_a_dry_run_says_rungs_and_how_much_is_trained(tmp_path, capsys):
    asha_grid(tmp_path)
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--dry-run", "--json"]) == 0
    asha = json.loads(capsys.readouterr().out)["asha"]
    assert [(rung["steps"], rung["trainings"], rung["least"], rung["most"]) for rung in asha["rungs"]] == [
        (1, 8, 4, 8), (2, 8, 2, 8), (4, 8, 1, 8)
    ]  # fmt: skip
    assert (asha["least"], asha["most"], asha["without"]) == (8 + 4 + 2 * 2 + 1 * 2, 48, 48)
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of 48 different optimiser steps, at least 18 and at most 48 are trained" in said
    Trained(asha_grid(tmp_path), worse_and_worse(asha_grid(tmp_path))).run()
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--dry-run"]) == 0
    assert "stopped by asha, seed 0: 20.0 % after 1 steps" in " ".join(capsys.readouterr().out.split())


def test_steps_that_runs_share_are_counted_once(tmp_path):
    graph = graph_of(asha_grid(tmp_path, axes=FILTERS, asha={"first": 5, "eta": 3}))
    found = bounds_of(asha_grid(tmp_path, axes=FILTERS, asha={"first": 5, "eta": 3}).spec.asha, graph)
    assert (found.least, found.most, found.without) == (4 + 3 + 1, 4 + 3 + 2, 4 + 6)


# -------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({"asha": {"first": 0}}, "asha.first", "greater than or equal to 1"),
        ({"asha": {"first": 2, "eta": 1}}, "asha.eta", "greater than or equal to 2"),
        ({"asha": {"frist": 2}}, "asha.frist", "Did you mean 'first'?"),
        ({"asha": {"first": 6}}, "asha.first", "no cell is trained for more than 6 steps"),
        ({"set": {"train.validation.every": 3}, "asha": {"first": 2}}, "asha.first", "is first validated after 3 steps"),
        ({"set": {"data.validation": []}}, "asha", "has no data.validation"),
        ({"axes": {"train.validation.max_clips": [1, 2]}}, "asha", "is validated on other questions"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, values, place, words):
    with pytest.raises(RecipeError) as caught:
        asha_grid(tmp_path, **values)
    assert words in {problem.path: problem.message for problem in caught.value.problems}[place]


def test_the_example_of_the_docs(tmp_path, capsys):
    """components.yaml with asha: 9 different trainings, as four filters share stage 1."""
    example = "asha: {first: 36, eta: 3}"
    assert example in (ROOT / "docs" / "ablations.md").read_text()
    shipped = ROOT / "recipes" / "ablations" / "components.yaml"
    base = f"base: {ROOT / 'recipes' / 'quickstart.yaml'}"
    text = shipped.read_text().replace("base: ../quickstart.yaml", base)
    file = tmp_path / "components.yaml"
    file.write_text(f"{text}\n{example}\n")
    grid = load(file, [f"runs={tmp_path / 'runs'}", f"store={tmp_path / 'store'}"])
    require_places(grid)
    (rung,) = bounds_of(grid.spec.asha, graph_of(grid)).rungs
    assert (rung.steps, rung.trainings, rung.least) == (36, 9, 3)


def test_a_rung_from_which_none_could_go_on_is_refused_before_anything_runs(tmp_path, capsys):
    """4 cells, of which 1 goes on from the first rung: at the second one there is nobody to be better than."""
    grid = asha_grid(tmp_path, axes={"train.stage1.lr": [0.001, 0.002, 0.003, 0.004]}, asha={"first": 1, "eta": 3})
    with pytest.raises(RecipeError, match=r"grid.yaml: 1 problem\n  asha.eta: is 3, but only 1 different trainings"):
        require_places(grid)
    for option in ([], ["--dry-run"]):
        assert cli.call(["grid", str(tmp_path / "grid.yaml"), *option]) == 2
    assert "asha.eta" in capsys.readouterr().err
    require_places(
        asha_grid(tmp_path, axes={"train.stage1.lr": [0.001, 0.002, 0.003, 0.004]}, asha={"first": 3, "eta": 3})
    )
