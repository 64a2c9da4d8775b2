"""How long the program takes to say what it can do, and how much of a small run is Ray's: a process from its start to its end, on an
idle machine; the processor's seconds of the process and of those that it started are beside the clock's."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.environments import ROOT

SMALL = [
    "data.train.0.videos=24", "data.validation=[]", "data.test.0.videos=8",
    "model.backbone.perception_steps=4", "model.backbone.copy_steps=0",
    "train.stage1.steps=4", "train.stage2.steps=0", "train.stage1.clips_per_batch=4",
]  # fmt: skip
CONNECT = "from cluenet.cluster import connected\nwith connected(): pass"


def seconds(command: Sequence[object], **environment: str) -> tuple[float, float]:
    """By the clock, and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        list(map(str, command)), check=True, capture_output=True, cwd=ROOT, env={**os.environ, **environment}
    )
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(("arguments", "at_most_seconds"), [(["--help"], 0.5), (["components"], 5.0)], ids=str)
def test_start_up(benchmark, say, arguments: list[str], at_most_seconds: float) -> None:
    command = [sys.executable, "-m", "cluenet", *arguments]
    seconds(command)  # files into the cache
    found = [seconds(command) for _ in range(3)]
    benchmark.pedantic(seconds, (command,), rounds=1)
    clock, processor = map(statistics.median, zip(*found))
    say(f"cluenet {' '.join(arguments)}: {clock:.2f} s, {processor:.2f} s of the processor")
    assert clock < at_most_seconds


def test_share_of_ray_in_two_runs(benchmark, say, tmp_path: Path) -> None:
    """As `make demo` does it: a baseline and a run by one command, here of four steps each."""
    data = [f"data.{split}.0.folder={tmp_path}/clueworld" for split in ("train", "test")]
    places = [f"store={tmp_path}/store", f"runs={tmp_path}/runs", *data]
    recipes = [ROOT / "recipes" / name for name in ("quickstart_baseline.yaml", "quickstart.yaml")]
    python = {"PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("platform", "components"))}
    command = [sys.executable, "-m", "cluenet", "run", *recipes, *SMALL, *places]
    (whole, processor) = benchmark.pedantic(seconds, (command,), python, rounds=1)
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == len(recipes)
    steps = [step["seconds"] for run in runs for step in json.loads((run / "steps.json").read_text()).values()]
    stages = [json.loads((run / "steps.json").read_text())["stage1"]["seconds"] for run in runs]
    loops = [json.loads((run / "stage1" / "manifest.json").read_text())["seconds"] for run in runs]
    start, _ = seconds([sys.executable, "-c", CONNECT], **python)
    around = (sum(stages) - sum(loops)) / len(runs)
    say(
        f"two small runs by one command: {whole:.1f} s ({processor:.1f} s of the processor in processes that ended), of which all "
        f"steps {sum(steps):.1f} s; around the loop of a stage (Ray Train's controller, a worker, its imports) {around:.1f} s; to "
        f"start Ray and to end it {start:.1f} s, once instead of twice"
    )
    assert sum(loops) < sum(steps) < whole
