"""Evaluation with Ray Data: the same bytes as without it, whatever the workers and however often it was killed; errors that
reach the driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluenet.errors import CheckpointError, ClusterError
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.workers import results_of
from cluenet.folders import read_manifest
from helpers.evaluation import Silent, model_folder, prepared_test, recipe

pytestmark = pytest.mark.usefixtures("ray_session")

FILES = ("results.json", "samples.jsonl")


def _recipe(**evaluate):
    return recipe(evaluate={"questions_per_batch": 5, "bootstrap": 100, "faithfulness": True, **evaluate})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("m") / "model", recipe=_recipe())


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("p")
    return [
        prepared_test(folder / "aaaa", recipe=_recipe(), clips=6, lost=1),
        prepared_test(folder / "bbbb", recipe=_recipe(), clips=3, split="ood", seed=50),
    ]


def _bytes(out: Path) -> dict[str, bytes]:
    return {f"{name}/{file}": (out / name / file).read_bytes() for name in ("fake-test", "fake-ood") for file in FILES}


def test_two_workers_and_no_ray_give_the_same_bytes(model: Path, sets: list[Path], tmp_path: Path) -> None:
    def run(out: Path, recipe, **options):
        return evaluate(recipe, model_folder=model, prepared=sets, out=out, progress=Silent, **options)

    found = run(tmp_path / "local", _recipe(), local=True)
    assert run(tmp_path / "ray", _recipe(workers=2)) == found
    assert Silent.last.done == Silent.last.total == 15 + 7
    assert _bytes(tmp_path / "ray") == _bytes(tmp_path / "local")
    assert found["fake-test"]["counts"]["rows"] == 16
    assert read_manifest(tmp_path / "ray/fake-ood")["workers"] == 2


def test_an_error_on_a_worker_is_raised_here_as_it_was(sets: list[Path], tmp_path: Path) -> None:
    broken = model_folder(tmp_path / "model", recipe=_recipe())
    (broken / "cluenet.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"cluenet\.safetensors: cannot be read"):
        evaluate(_recipe(), model_folder=broken, prepared=sets, out=tmp_path / "out", progress=Silent)
    assert not list((tmp_path / "out").glob("*/manifest.json"))


def test_more_than_the_cluster_has_is_said_at_once(model: Path, sets: list[Path], tmp_path: Path) -> None:
    with pytest.raises(
        ClusterError, match=r"evaluate.workers=64 x evaluate.threads=1 asks for 64 CPU, but the cluster has 2"
    ):
        evaluate(_recipe(workers=64), model_folder=model, prepared=sets, out=tmp_path, progress=Silent)


# ---------------------------------------------------------------------------------------------------- killed

KILLED = """
import os, signal, sys
from pathlib import Path
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.kept import Kept
from helpers.evaluation import Silent, recipe

written, write = [], Kept.write
def write_and_die(self, number, result):
    write(self, number, result)
    written.append(number)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Kept.write = write_and_die
model, out, *prepared = map(Path, sys.argv[1:])
asked = recipe(evaluate={evaluate!r})
evaluate(asked, model_folder=model, prepared=prepared, out=out, progress=Silent, local=True)
"""


def test_after_a_kill_no_question_is_answered_twice(model: Path, sets: list[Path], tmp_path: Path) -> None:
    """A process is killed with two batches answered; workers of Ray answer the rest, and the bytes are the same."""
    settings = {"questions_per_batch": 5, "bootstrap": 100, "faithfulness": True}
    path, script = os.pathsep.join(filter(None, sys.path)), KILLED.format(evaluate=settings)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, [model, tmp_path / "killed", *sets])],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    kept = answered(tmp_path / "killed")
    assert len(kept) == len(set(kept)) > 0
    asked: list[str] = []

    def counting(*arguments):
        for index, result in results_of(*arguments):
            asked.extend(sample["id"] for sample in result.samples)
            yield index, result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluenet.evaluate.workers.results_of", counting)
        evaluate(_recipe(), model_folder=model, prepared=sets, out=tmp_path / "killed", progress=Silent)
    assert len(asked) > 0
    assert len(kept + asked) == len(set(kept + asked)) == 15 + 7
    assert answered(tmp_path / "killed") == []
    assert Silent.last.done == Silent.last.total == 15 + 7
    evaluate(_recipe(), model_folder=model, prepared=sets, out=tmp_path / "whole", progress=Silent, local=True)
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def answered(out: Path) -> list[str]:
    """Ids of the questions whose answers are kept for an evaluation that has not ended."""
    files = [json.loads(file.read_text()) for file in sorted(out.glob("*/answered/*.json"))]
    return [sample["id"] for file in files for sample in file["result"]["samples"]]
