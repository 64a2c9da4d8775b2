"""The result of a grid from the folders of its runs: numbers, comparisons, what is refused, and the same bytes again."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cluenet import cli
from cluenet.errors import GridError
from cluenet.evaluate.compare import compare
from cluenet.folders import read_manifest, write_manifest
from cluenet.grid import running, tables
from cluenet.grid.account import Account, Outcome
from cluenet.grid.graph import graph_of
from cluenet.grid.results import collect
from cluenet.metrics.arms import mean_accuracy
from cluenet.metrics.inference import holm
from cluenet.planning import Plan
from helpers.grids import FILTERS, evaluated, grid_of, samples_of, write_evaluation

SHARES = {"keep_all": 0.5, "random": 0.2, "top_k": 0.9}
COUNT = 60
SET = "clueworld-test"


def rights(cell, seed):
    """Reproducible, and other ones for every cell and seed."""
    rng = np.random.default_rng([seed, *cell.name.encode()])
    name = cell.values["model.clue_filter"].label
    return list(rng.random(COUNT) < SHARES[name])


def content_of(grid, **options):
    return collect(grid, graph_of(grid), Account(grid.folder), resamples=options.get("resamples", 300))


@pytest.fixture
def filters(tmp_path):
    grid = grid_of(tmp_path, axes=FILTERS, seeds=[0, 1])
    evaluated(grid, rights)
    return grid


def test_a_cell_is_the_mean_of_its_seeds_with_each_of_them(filters):
    cells = content_of(filters)["cells"]
    for cell, made in zip(cells, filters.cells):
        wanted = [float(np.mean(rights(made, seed))) for seed in (0, 1)]
        found = cell["sets"][SET]
        assert found["accuracies"] == pytest.approx(wanted)
        assert found["accuracy"]["value"] == pytest.approx(np.mean(wanted), abs=1e-6)
        assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]
        assert (cell["state"], [run["seed"] for run in cell["runs"]]) == ("finished", [0, 1])
        assert [run["folder"] for run in cell["runs"]] == [Plan(recipe).run.name for recipe in made.recipes.values()]


def test_differences_are_those_of_compare_corrected_over_all_cells(filters):
    cells = content_of(filters)["cells"]
    runs = [[Plan(recipe).run for recipe in cell.recipes.values()] for cell in filters.cells]
    alone = [compare(runs[0], other, resamples=300).rows[0] for other in runs[1:]]
    found = [cell["sets"][SET]["difference"] for cell in cells]
    assert found[0] is None
    for mine, theirs in zip(found[1:], alone):
        assert mine["result"]["difference"] == pytest.approx(theirs.result.difference.to_dict(), abs=1e-6)
        assert mine["result"]["p_value"] == pytest.approx(theirs.result.p_value, abs=1e-6)
    adjusted = holm([row.result.p_value for row in alone])
    assert [mine["p_holm"] for mine in found[1:]] == pytest.approx(adjusted, abs=1e-6)
    assert {mine["tests"] for mine in found[1:]} == {2}


def test_the_interval_of_a_mean_is_the_share_of_resampled_videos():
    """One run: the percentile bootstrap by video, drawn here by plain numpy."""
    rng = np.random.default_rng(5)
    right, videos = rng.random((1, 80)) < 0.6, [f"v{i // 4}" for i in range(80)]
    found = mean_accuracy(right, videos, resamples=20_000)
    by_video = right.reshape(20, 4).mean(1)
    draws = by_video[rng.integers(0, 20, (20_000, 20))].mean(1)
    assert found.value == right.mean()
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.01)


def test_several_seeds_widen_the_interval_by_their_spread():
    rng, videos = np.random.default_rng(0), [f"v{i}" for i in range(400)]
    alike = np.tile(rng.random(400) < 0.5, (3, 1))
    apart = np.stack([rng.random(400) < share for share in (0.2, 0.5, 0.8)])
    widths = [
        found.high - found.low for found in (mean_accuracy(one, videos, resamples=2000) for one in (alike, apart))
    ]
    assert widths[1] > 3 * widths[0]


def test_main_effects_are_means_over_the_other_axes(tmp_path):
    axes = {"model.clue_filter": ["keep_all", "top_k"], "train.stage1.steps": [4, 5, 6]}
    grid = grid_of(tmp_path, axes=axes, seeds=[0, 1])
    evaluated(grid, rights)
    found = {(one["axis"], one["value"]): one for one in content_of(grid)["effects"]}
    assert list(found) == [("model.clue_filter", "top_k"), ("train.stage1.steps", "5"), ("train.stage1.steps", "6")]
    means = {cell.name: np.mean([rights(cell, seed) for seed in (0, 1)]) for cell in grid.cells}
    wanted = np.mean(
        [means[f"clue_filter=top_k steps={n}"] - means[f"clue_filter=keep_all steps={n}"] for n in (4, 5, 6)]
    )
    top_k = found["model.clue_filter", "top_k"]
    assert top_k["difference"]["value"] == pytest.approx(wanted, abs=1e-6)
    assert top_k["cells"] == 3
    assert top_k["difference"]["low"] > 0.2
    assert top_k["p_holm"] < 0.05
    assert [one["p_holm"] for one in found.values()] == pytest.approx(
        holm([one["p_value"] for one in found.values()]), abs=1e-5
    )
    assert (
        found["train.stage1.steps", "5"]["difference"]["low"]
        < 0
        < found["train.stage1.steps", "5"]["difference"]["high"]
    )


def test_one_factor_at_a_time_the_differences_are_the_effects(tmp_path):
    grid = grid_of(tmp_path, axes={**FILTERS, "train.stage1.steps": [4, 5]}, mode="one_factor")
    evaluated(grid, rights)
    assert content_of(grid)["effects"] == []


def test_best_for_some_wish(tmp_path):
    grid = grid_of(tmp_path, axes=FILTERS)
    tokens = {"keep_all": 20.0, "random": 30.0, "top_k": 40.0}
    evaluated(grid, rights, tokens=lambda cell: tokens[cell.values["model.clue_filter"].label])
    cells = content_of(grid)["cells"]
    assert [cell["sets"][SET]["tokens"] for cell in cells] == [24.0, 34.0, 44.0]  # and four clue words
    assert [cell["sets"][SET]["pareto"] for cell in cells] == [True, False, True]


# ------------------------------------------------------------------------------------------------- what is missing


def test_missing_runs_are_told_and_the_rest_is_compared(tmp_path):
    grid = grid_of(tmp_path, axes=FILTERS, seeds=[0, 1])
    evaluated(grid, lambda cell, seed: None if (cell.values["model.clue_filter"].label, seed) == ("random", 1)
              or cell.name.endswith("top_k") else rights(cell, seed))  # fmt: skip
    account = Account(grid.folder)
    key = next(key for key in graph_of(grid).runs["clue_filter=random", 1] if key[0] == "stage2")
    account.add(key, Outcome(3.0, "the loss is nan"), 2)
    content = content_of(grid)
    _, random, top_k = content["cells"]
    assert [cell["state"] for cell in content["cells"]] == ["finished", "partial", "not run"]
    assert random["runs"][1]["state"] == "failed"
    assert random["runs"][1]["why"] == "stage2: the loss is nan"
    assert random["sets"][SET]["difference"]["result"]["accuracies_b"] == pytest.approx(
        [np.mean(rights(grid.cells[1], 0))]
    )
    assert top_k["sets"] == {}
    text = printed(content)
    assert "clue_filter=random, seed 1: stage2: the loss is nan" in text
    assert "clue_filter=top_k: not run yet with seed 0, 1" in text
    assert "1/2" in text


@pytest.mark.parametrize(("change", "why"), [("questions", "other question ids"), ("frames", "other frames")])
def test_cells_that_cannot_be_compared_are_refused_with_the_reason(tmp_path, change, why):
    grid = grid_of(tmp_path, axes=FILTERS)
    evaluated(grid, rights)
    plan = Plan(grid.cells[1].recipe)
    folder = plan.run / "evaluation" / SET
    if change == "frames":
        write_manifest(folder, {**read_manifest(folder), "policy_fingerprint": "other"})
    else:
        lines = (folder / "samples.jsonl").read_text().splitlines()
        (folder / "samples.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    content = content_of(grid)
    _, refused, compared = (cell["sets"][SET] for cell in content["cells"])
    assert why in refused["refused"]
    assert refused["difference"] is None
    assert refused["accuracy"]["value"] is not None
    assert compared["difference"]["tests"] == 1
    with pytest.raises(
        GridError, match=f"not compared with 'clue_filter=keep_all', see the reasons:\n  clue_filter=random: .*{why}"
    ):
        running.check_compared(content)


def test_other_frames_are_compared_on_request(tmp_path):
    grid = grid_of(tmp_path, axes={"data.sampler.frames": [16, 8]}, across_frames=True)
    for cell, fingerprint in zip(grid.cells, "ab"):
        write_evaluation(Plan(cell.recipe), samples_of([True, False] * 10), policy_fingerprint=fingerprint)
    assert content_of(grid)["cells"][1]["sets"][SET]["difference"]["result"]["difference"]["value"] == 0


def test_without_a_reference_there_are_no_differences(tmp_path):
    grid = grid_of(tmp_path, axes=FILTERS)
    evaluated(grid, lambda cell, seed: None if cell is grid.cells[0] else rights(cell, seed))
    content = content_of(grid)
    assert content["cells"][1]["sets"][SET]["refused"] == "the reference has no result"
    assert content["test_sets"] == [SET]


# ------------------------------------------------------------------------------------------------------- the files


def printed(content) -> str:
    console = Console(width=220, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(tables.result_tables(content))
    return console.export_text()


def files_of(grid) -> dict[str, bytes]:
    return {name: (grid.folder / name).read_bytes() for name in ("grid.json", "grid.csv", "grid.html")}


def test_the_files_are_the_same_bytes_again(tmp_path, capsys):
    grid = grid_of(tmp_path, axes=FILTERS, seeds=[0, 1])
    evaluated(grid, rights)
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--table"]) == 0
    before = files_of(grid)
    for file in before:
        (grid.folder / file).unlink()
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--table", "--json"]) == 0
    assert files_of(grid) == before
    assert capsys.readouterr().out.endswith(before["grid.json"].decode())


def test_a_line_of_csv_per_cell_and_test_set(filters):
    content, _ = running.write(filters)
    lines = list(csv.DictReader((filters.folder / "grid.csv").read_text().splitlines()))
    assert [line["model.clue_filter"] for line in lines] == ["keep_all", "random", "top_k"]
    for line, cell in zip(lines, content["cells"]):
        found = cell["sets"][SET]
        assert float(line["accuracy"]) == found["accuracy"]["value"]
        assert [float(one) for one in line["accuracies"].split()] == found["accuracies"]
        assert (line["difference"] == "") == (found["difference"] is None)
        assert (line["seeds"], line["questions"], line["test_set"]) == ("2", str(COUNT), SET)


def test_the_page_shows_every_cell_and_needs_nothing_from_elsewhere(filters):
    content, _ = running.write(filters)
    page = (filters.folder / "grid.html").read_text()
    values = [float(value) for value in re.findall(r'data-value="([\d.]+)"', page)]
    for cell in content["cells"]:
        assert f'<th scope="row">{cell["name"]}</th>' in page
        assert cell["sets"][SET]["accuracy"]["value"] in values
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page)


def test_labels_cannot_break_the_page(tmp_path):
    bad = "<script>alert(1)</script>"
    grid = grid_of(tmp_path, axes={"train.stage2.steps": [2, {"label": bad, "value": 3}]})
    evaluated(grid, lambda cell, seed: [True, False] * 4)
    running.write(grid)
    assert bad not in (grid.folder / "grid.html").read_text()


# ------------------------------------------------------------------------------------------------ the command line


def test_a_dry_run_starts_nothing_and_says_what_is_shared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("it started Ray"))
    grid = grid_of(tmp_path, axes=FILTERS, seeds=[0, 1])
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert len(planned["runs"]) == 6
    stage1 = next(step for step in planned["steps"] if step["step"] == "stage1")
    assert (stage1["asked"], stage1["unique"], stage1["left"]) == (6, 2, 2)
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--dry-run", "--max-cells", "1"]) == 0
    text = capsys.readouterr().out
    assert "clue_filter=keep_all" in text
    assert "clue_filter=random" not in text
    assert not grid.folder.exists()


def test_a_wrong_grid_is_the_users_mistake(tmp_path, capsys):
    grid_of(tmp_path, axes=FILTERS)
    file = tmp_path / "grid.yaml"
    file.write_text(file.read_text().replace("random", "randm"))
    assert cli.call(["grid", str(file)]) == 2
    error = capsys.readouterr().err
    assert "grid.yaml: 1 problem" in error
    assert "axes.model.clue_filter.1" in error


def test_refused_cells_end_with_exit_code_2_after_the_table(tmp_path, capsys):
    grid = grid_of(tmp_path, axes=FILTERS)
    evaluated(grid, rights)
    folder = Plan(grid.cells[1].recipe).run / "evaluation" / SET
    write_manifest(folder, {**read_manifest(folder), "policy_fingerprint": "other"})
    assert cli.call(["grid", str(tmp_path / "grid.yaml"), "--table"]) == 2
    found = capsys.readouterr()
    assert "not compared with" in found.err
    assert "clue_filter=top_k" in found.out
    assert (grid.folder / "grid.html").is_file()


def test_values_of_axes_are_told_in_the_file_of_results(filters):
    content = content_of(filters)
    assert content["axes"] == {"model.clue_filter": ["keep_all", "random", "top_k"]}
    assert Path(filters.folder).name == "g"
    assert {row["type"] for row in content["types"]} == {"who", "count"}
