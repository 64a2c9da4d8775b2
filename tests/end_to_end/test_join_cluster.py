"""A cluster that somebody else started, with a token, in an environment that has the libraries but not cluenet."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helpers import heads
from helpers.environments import HERE, Environment, make_environment

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-cluster-0123456789"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a head."""
    bare = make_environment(tmp_path_factory.mktemp("bare") / "venv", [])
    nothing = subprocess.run([str(bare.python), "-c", "import cluenet"], capture_output=True, check=False)
    assert nothing.returncode, "the head's environment must not have cluenet"
    with heads.head(bare.python, variables={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}) as one:
        yield one.address


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    data = {
        "reader": "pyav", "fallback_reader": None, "size": {"height": 64, "width": 64},
        "train": [{"name": "clueworld", "videos": 2, "folder": str(tmp_path / "worlds")}],
    }  # fmt: skip
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"), "data": data}))
    return path


def test_without_the_token_it_says_where_to_put_it(head: str, recipe: Path):
    started = time.monotonic()
    result = HERE.call("prepare", recipe, "--address", head, cwd=recipe.parent)
    assert result.returncode == 2
    assert f"Ray cluster '{head}' wants a token" in result.stderr
    assert "RAY_AUTH_TOKEN" in result.stderr
    assert time.monotonic() - started < 60


def test_with_the_token_its_workers_get_our_code(head: str, recipe: Path):
    """No RAY_AUTH_MODE: a token at hand is used by itself, which Ray does not do for an address that is given."""
    ours = Environment(HERE.python, {"RAY_AUTH_TOKEN": TOKEN, "RAY_ADDRESS": head}, without=("RAY_AUTH_MODE",))
    result = ours.call("prepare", recipe, cwd=recipe.parent)
    assert result.returncode == 0, result.stderr
    (manifest,) = (recipe.parent / "store" / "prepared").glob("*/manifest.json")
    assert str(manifest.parent) in result.stdout
