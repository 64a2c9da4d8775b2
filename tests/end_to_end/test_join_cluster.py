"""A cluster that somebody else started, with a token, in an environment that has the libraries but not cluenet."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from helpers.environments import HERE, QUIET, Environment, make_environment

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-cluster-0123456789"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a head. Its processes end with it; `ray stop` would end those of others too."""
    bare = make_environment(tmp_path_factory.mktemp("bare") / "venv", [])
    nothing = subprocess.run([str(bare.python), "-c", "import cluenet"], capture_output=True, check=False)
    assert nothing.returncode, "the head's environment must not have cluenet"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [str(bare.python), "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=2"]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    variables = {**inherited, **QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    process = subprocess.Popen(
        [*command, "--include-dashboard=false", "--block"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        for child in (process, *children):  # a graceful end takes half a minute
            child.kill()
        process.wait(timeout=60)
        psutil.wait_procs(children, timeout=60)


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            time.sleep(5)  # the node itself joins a little later
            return
    raise AssertionError(f"the head did not start: {process.communicate(timeout=1) if process.poll() else 'no answer'}")


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
