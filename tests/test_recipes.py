"""Every recipe of the repository is valid, says what it costs, and has the schema that editors use."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from cluenet.grid.cells import load as load_grid
from cluenet.grid.graph import graph_of
from cluenet.recipe import json_schema, load

RECIPES = Path(__file__).parent.parent / "recipes"
GRIDS = sorted((RECIPES / "ablations").glob("*.yaml"))
FILES = sorted({*RECIPES.rglob("*.yaml"), *RECIPES.rglob("*.yml")} - set(GRIDS))
SEEN = 28
"""How many recipes there are: change it with them, so that a scan that finds nothing cannot pass."""

MOST_RUNS = 36
"""Of a grid, cells and seeds together, so that it can be measured in an hour or two."""

HEADER = ("Run:", "Needs:", "Takes:", "Scores:")


def test_all_recipes_are_seen():
    assert len(FILES) == SEEN, f"found {[str(path) for path in FILES]}; update SEEN in {Path(__file__).name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_recipe_is_valid(path: Path):
    recipe = load(path)
    assert type(recipe).from_dict(recipe.to_dict()) == recipe


def test_all_grids_are_seen():
    assert [path.stem for path in GRIDS] == ["components", "cross_backbone", "filters", "pruning"]


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_grid_is_valid(path: Path):
    made = load_grid(path)
    assert made.spec.name == path.stem.replace("_", "-")
    assert len(made.cells) * len(made.spec.seeds) <= MOST_RUNS


def test_cells_of_the_filters_train_stage_1_once_per_seed():
    """By the optimiser steps of the different stages: what 12 runs take together is at most 70 % of 12 runs apart."""
    graph = graph_of(load_grid(RECIPES / "ablations" / "filters.yaml", ["runs=nowhere", "store=nowhere"]))
    counts = graph.counts()
    assert [(counts[stage]["asked"], counts[stage]["unique"]) for stage in ("stage1", "stage2")] == [(12, 3), (12, 12)]
    recipe = next(iter(graph.nodes.values())).recipe
    steps = {stage: getattr(recipe.train, stage).steps for stage in ("stage1", "stage2")}
    together, apart = (sum(steps[stage] * counts[stage][kind] for stage in steps) for kind in ("unique", "asked"))
    assert together <= 0.7 * apart


@pytest.mark.parametrize("path", [*FILES, *GRIDS], ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_recipe_says_how_to_run_it_what_it_needs_takes_and_scores(path: Path):
    header = [line for line in path.read_text().split("version:")[0].splitlines() if line.startswith("#")]
    missing = [word for word in HEADER if not any(line.startswith(f"# {word}") for line in header)]
    assert not missing, f"{path} lacks comment lines {missing} before its first setting; `not measured` is an answer"
    assert (
        path in GRIDS
        or header[0]
        == "# yaml-language-server: $schema=" + "../" * (len(path.relative_to(RECIPES).parts) - 1) + "schema.json"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_editors_accept_a_recipe(path: Path):
    schema = json.loads((RECIPES / "schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema, cls=jsonschema.Draft202012Validator)


def test_the_schema_is_up_to_date():
    written = json.loads((RECIPES / "schema.json").read_text())
    assert written == json_schema(), "recipes/schema.json is out of date: make schema"


def test_the_schema_finds_mistakes():
    schema = json_schema()
    for wrong in (
        {"trian": {}},
        {"data": {"sampler": "unifrom"}},
        {"data": {"sampler": {"name": "uniform", "frame": 3}}},
        {"data": {"sampler": {"name": "uniform", "frames": 0}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema, cls=jsonschema.Draft202012Validator)
