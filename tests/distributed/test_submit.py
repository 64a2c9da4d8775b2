"""Jobs on a real head whose environment has the libraries but not cluenet, with a token, through the real command lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from cluenet.folders import finished, read_manifest
from cluenet.train.trackers import read_lines
from helpers import heads
from helpers.environments import HERE, QUIET, ROOT, Environment, make_environment

TOKEN = "a-token-of-the-cluster-0123456789"
OURS = Environment(HERE.python, {"RAY_AUTH_TOKEN": TOKEN}, without=("RAY_AUTH_MODE",))
"""No RAY_AUTH_MODE: a token at hand is used by itself, which Ray does not do for an address that is given."""

LONG = "train.stage1.steps=100000"
LIMIT = 900
"""Seconds for anything; pytest has its own limit for a test."""

CHANGED = """
        from cluenet.errors import DataError

        raise DataError(f"changed in the checkout, at {__file__}")
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a dashboard."""
    bare = make_environment(tmp_path_factory.mktemp("bare") / "venv", [])
    nothing = subprocess.run([str(bare.python), "-c", "import cluenet"], capture_output=True, check=False)
    assert nothing.returncode, "the head's environment must not have cluenet"
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with heads.head(bare.python, dashboard=True, variables=variables) as one:
        yield str(one.dashboard)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what ships of this repository, with a small recipe."""
    folder = tmp_path / "checkout"
    for name in ("platform", "components"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "sitecustomize.py", folder)
    world = {"name": "clueworld", "videos": 2, "folder": str(tmp_path / "worlds")}
    values = {
        "name": "job", "store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"),
        "data": {
            "reader": "pyav", "fallback_reader": None, "size": {"height": 64, "width": 64}, "sampler": {"name": "uniform", "frames": 4},
            "train": [world], "test": [{**world, "split": "test"}],
        },
        "model": {"backbone": {
            "name": "tiny", "hidden": 64, "layers": 3, "vision_hidden": 32, "perception_steps": 0, "copy_steps": 2, "copy_questions": 16,
        }},
        "train": {
            "stage1": {"steps": 2, "clips_per_batch": 1, "questions_per_clip": 1}, "stage2": {"steps": 0}, "checkpoint": {"every": 1},
        },
        "evaluate": {"questions_per_batch": 32, "bootstrap": 100, "rows": ["own"]},
    }  # fmt: skip
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_the_shipped_code_runs_on_workers_and_its_exit_code_comes_back(head: str, checkout: Path):
    """A backbone is made by a task on a worker; that of this checkout is another one than ours, and fails with code 2."""
    component = checkout / "components" / "cluenet_components" / "backbones" / "tiny.py"
    before = "    def pretrain(self, context: PretrainContext) -> Path:\n"
    component.write_text(component.read_text().replace(before, before + CHANGED))
    result = OURS.call("submit", "r.yaml", "data.test=[]", "--address", head, cwd=checkout, timeout=LIMIT)
    assert result.returncode == 2, result.stderr
    shipped = r"changed in the checkout, at \S+/_ray_pkg_\w+/components/cluenet_components/backbones/tiny\.py"
    assert re.search(f"error: {shipped}", result.stdout), result.stdout
    assert "FAILED: Job entrypoint command failed with exit code 2" in result.stderr
    assert not list(checkout.rglob("*.pyc")), "nothing of it ran here"


def steps_of(checkout: Path) -> list[int]:
    return [line["step"] for log in (checkout.parent / "runs").glob("job-*/logging.jsonl") for line in read_lines(log)]


def wait_until(there: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not there():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.2)


def driver() -> psutil.Process:
    """The process that the long job's command is."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words[1:5] == ["-m", "cluenet", "run", "r.yaml"] and LONG in words and "_ray_pkg_" in process.cwd():
                return process
    raise AssertionError("no driver among the processes")


@pytest.mark.slow
def test_a_retried_job_resumes_and_one_that_is_stopped_is_no_success(head: str, checkout: Path):
    def submit(*options: str) -> subprocess.Popen[str]:
        return OURS.start("submit", "r.yaml", LONG, "--address", head, *options, cwd=checkout)

    name = submit("--no-follow").communicate(timeout=LIMIT)[0].split()[1]
    assert name.endswith("-1")
    wait_until(lambda: len(steps_of(checkout)) >= 3, "three steps of the first attempt")
    follower = submit()
    assert name in str(follower.stdout.readline()), "the attempt under way is followed, no second one is started"
    driver().kill()
    assert follower.wait(timeout=LIMIT) == 128 + signal.SIGKILL

    done = steps_of(checkout)
    again = submit()
    assert name.removesuffix("-1") + "-2" in str(again.stdout.readline())
    wait_until(lambda: len(steps_of(checkout)) > len(done), "a step of the second attempt")
    other = submit()
    wait_until(lambda: "Running entrypoint" in str(other.stdout.readline()), "the log from its start")
    other.send_signal(signal.SIGINT)
    _, error = other.communicate(timeout=60)
    assert (other.returncode, "goes on" in error) == (130, True), error

    ray_job(head, "stop", name.removesuffix("-1") + "-2", cwd=checkout)
    _, error = again.communicate(timeout=LIMIT)
    assert again.returncode == 1
    assert "-2: STOPPED" in error
    assert steps_of(checkout) == list(range(1, len(steps_of(checkout)) + 1)), "steps of both attempts follow each other"
    (run,) = (checkout.parent / "runs").glob("job-*")
    assert json.loads((run / "steps.json").read_text())["pretrain"]["attempts"] == 1


def ray_job(head: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Ray's own command line."""
    variables = {**os.environ, **QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    for name in ("PYTHONPATH", "RAY_ADDRESS"):
        variables.pop(name, None)
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", words[0], "--address", head, *words[1:]]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.mark.slow
def test_the_plain_command_of_ray_runs_a_recipe_to_its_end(head: str, checkout: Path):
    command = ["python", "-m", "cluenet", "run", "r.yaml"]
    result = ray_job(head, "submit", "--working-dir", ".", "--", *command, cwd=checkout)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (run,) = (checkout.parent / "runs").glob("job-*")
    assert finished(run)
    assert read_manifest(run)["versions"]["cluenet"]
    assert (run / "report.html").is_file()
