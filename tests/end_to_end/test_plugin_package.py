"""A component from a package outside the repository, found by its entry point: listed, in the schema, valid, at work."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from helpers.environments import Environment, build_wheel, make_environment

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "cluenet-ends"
version = "1.0"

[project.entry-points."cluenet.components"]
ends = "cluenet_ends"

[tool.hatch.build.targets.wheel]
packages = ["cluenet_ends"]
"""
COMPONENT = '''
"""Samples the ends of a clip."""

from pydantic import Field

from cluenet.contracts import Sampler
from cluenet.registry import ComponentConfig, register


@register.sampler("ends")
class Ends(Sampler):
    """The first frames of a clip, and the last one."""

    class Config(ComponentConfig):
        start: int = Field(1, ge=1, description="How many frames at the start.")

    def sample(self, video, first, last):
        return [*range(first, min(first + self.config.start, last)), last]
'''
RECIPE = {
    "store": "store",
    "runs": "runs",
    "data": {
        "reader": "pyav",
        "fallback_reader": None,
        "sampler": {"name": "ends", "start": 3},
        "size": {"height": 64, "width": 64},
        "train": [{"name": "clueworld", "videos": 2, "folder": "worlds"}],
    },
}


@pytest.fixture(scope="module")
def theirs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The clean environment with one more package in it."""
    project = tmp_path_factory.mktemp("project")
    (project / "cluenet_ends").mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "cluenet_ends" / "__init__.py").write_text(COMPONENT)
    plugin = build_wheel(project, tmp_path_factory.mktemp("plugin"))
    return make_environment(tmp_path_factory.mktemp("theirs") / "venv", [wheel, plugin])


def test_it_is_listed_with_its_settings(theirs: Environment, tmp_path: Path):
    rows = json.loads(theirs.call("components", "sampler", "--json", cwd=tmp_path).stdout)
    row = next(row for row in rows if row["name"] == "ends")
    assert row["module"] == "cluenet_ends"
    assert row["description"] == "The first frames of a clip, and the last one."
    assert row["settings"][0]["name"] == "start"


def test_editors_learn_of_it(theirs: Environment, tmp_path: Path):
    schema = json.loads(theirs.call("schema", cwd=tmp_path).stdout)
    jsonschema.validate(RECIPE, schema, cls=jsonschema.Draft202012Validator)
    wrong = {"data": {"sampler": {"name": "ends", "start": 0}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema, cls=jsonschema.Draft202012Validator)


def test_a_recipe_names_it_and_workers_run_it(theirs: Environment, tmp_path: Path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    wrong = theirs.call("validate", "r.yaml", "data.sampler.start=0", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "data.sampler.start: Input should be greater than or equal to 1, not 0" in wrong.stderr
    result = theirs.call("prepare", "r.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (manifest,) = (tmp_path / "store" / "prepared").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["policy"]["sampler"] == {"name": "ends", "start": 3}
    assert str(manifest.parent) in result.stdout

    from cluenet.prepared import PreparedSet

    prepared = PreparedSet(manifest.parent)
    assert [len(prepared.frames(key).frames_THWC) for key in prepared.clip_keys] == [4, 4]


def test_without_the_package_the_recipe_says_what_is_missing(installed: Environment, tmp_path: Path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    result = installed.call("validate", "r.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert "data.sampler: no sampler named 'ends'" in result.stderr


def test_a_package_that_is_broken_is_named_by_every_verb(wheel: Path, tmp_path: Path):
    project = tmp_path / "project"
    (project / "cluenet_ends").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "cluenet_ends" / "__init__.py").write_text("import a_library_that_is_not_there")
    broken = make_environment(tmp_path / "venv", [wheel, build_wheel(project, tmp_path / "plugin")])
    result = broken.call("components", cwd=tmp_path)
    assert result.returncode == 2
    assert "package 'cluenet-ends' (entry point 'ends') cannot be imported" in result.stderr
    assert "a_library_that_is_not_there" in result.stderr
