"""A cluster of several nodes, all on this machine: work spreads, a node or the driver may die, nodes come and go with the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluenet.folders import finished, read_manifest
from cluenet.train.trackers import read_lines
from helpers import heads
from helpers.environments import HERE, Environment
from helpers.training import lines_of

LIMIT = 900
"""Seconds for anything; pytest has its own limit for a test."""

PLUGIN = '''
"""Samples as `uniform` does, and notes in a file which node did it: the process of its raylet."""

import psutil

from cluenet.contracts import Sampler
from cluenet.registry import ComponentConfig, register


@register.sampler("where")
class Where(Sampler):
    """The first frames."""

    class Config(ComponentConfig):
        notes: str

    def sample(self, video, first, last):
        raylet = next(one.pid for one in psutil.Process().parents() if one.name() == "raylet")
        with open(self.config.notes, "a") as file:
            file.write(f"{raylet}\\n")
        return [min(first + i, last) for i in range(4)]
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "where.py").write_text(PLUGIN)
    stage = {"clips_per_batch": 2, "questions_per_clip": 1, "warmup_steps": 2}
    values = {
        "name": "nodes", "store": str(tmp_path / "store"), "plugins": ["where"],
        "data": {
            "reader": "pyav", "fallback_reader": None, "size": {"height": 32, "width": 32},
            "sampler": {"name": "where", "notes": str(tmp_path / "notes")},
            "train": [{"name": "clueworld", "videos": 40, "folder": str(tmp_path / "worlds")}],
        },
        "model": {"backbone": {
            "name": "tiny", "hidden": 64, "layers": 3, "vision_hidden": 32, "perception_steps": 0, "copy_steps": 2, "copy_questions": 16,
        }},
        "train": {
            "workers": 2, "resources": {"cpu": 1}, "stage1": {"steps": 12, **stage}, "stage2": {"steps": 0, **stage},
            "checkpoint": {"every": 3},
        },
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, and three nodes with one each."""
    from ray._private import utils
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(utils, "write_ray_address", lambda *_, **__: None)  # it would become everybody's `auto`
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            one.add_node(num_cpus=1)
        yield one
    finally:
        for node in one.list_all_nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def train(folder: Path, name: str, *overrides: str, address: str = "local") -> subprocess.Popen[str]:
    here = Environment(HERE.python, {"PYTHONPATH": str(folder)})
    return here.start("train", "r.yaml", f"runs={folder / name}", *overrides, "--address", address, cwd=folder)


def end_of(process: subprocess.Popen[str]) -> None:
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, error[-3000:]


def run_of(folder: Path, name: str) -> Path:
    (run,) = (folder / name).glob("nodes-*")
    return run


def wait_for_step(folder: Path, name: str, step: int, stage: str) -> None:
    def there() -> bool:
        lines = [line for log in (folder / name).glob("nodes-*/logging.jsonl") for line in read_lines(log)]
        return any(line["stage"] == stage and line["step"] >= step for line in lines)

    wait_until(there, f"step {step} of {stage}")


def wait_until(there: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not there():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def raylet_of(node: Any) -> psutil.Process:
    (info,) = node.all_processes["raylet"]
    return psutil.Process(info.process.pid)


def with_a_training_worker(cluster: Any) -> Any:
    for node in cluster.worker_nodes:
        family = raylet_of(node).children(recursive=True)
        if any("TrainWorker" in "".join(process.cmdline()) for process in family):
            return node
    raise AssertionError("no node has a training worker")


def assert_same_result(folder: Path, name: str, other: str) -> None:
    """Bit for bit: losses of every step, and every tensor of the model."""
    mine, theirs = run_of(folder, name), run_of(folder, other)
    assert lines_of(mine) == lines_of(theirs)
    tensors = sorted(path.relative_to(mine) for path in (mine / "model").rglob("*.safetensors"))
    assert len(tensors) >= 2
    for path in tensors:
        assert (mine / path).read_bytes() == (theirs / path).read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "steps"), [("stage1", ()), ("stage2", ("train.stage1.steps=2", "train.stage2.steps=12"))], ids=["stage1", "stage2"]
)  # fmt: skip
def test_a_node_that_dies_changes_nothing(folder: Path, cluster: Any, stage: str, steps: tuple[str, ...]):
    """Three nodes prepare and two train; the run goes on with those that are left and ends as one on a single node does."""
    process = train(folder, "faulty", *steps, address=cluster.address)
    wait_for_step(folder, "faulty", 5, stage)
    cluster.remove_node(with_a_training_worker(cluster), allow_graceful=False)
    end_of(process)
    assert len(set((folder / "notes").read_text().split())) >= 2, "one node decoded everything"
    assert finished(run_of(folder, "faulty") / "model")

    end_of(train(folder, "whole", *steps))
    assert_same_result(folder, "faulty", "whole")


@pytest.mark.slow
def test_a_driver_that_dies_is_followed_by_one_that_resumes(folder: Path, cluster: Any):
    process = train(folder, "resumed", address=cluster.address)
    wait_for_step(folder, "resumed", 5, "stage1")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not finished(run_of(folder, "resumed") / "stage1")

    end_of(train(folder, "resumed", address=cluster.address))
    assert read_manifest(run_of(folder, "resumed") / "model")
    account = json.loads((run_of(folder, "resumed") / "steps.json").read_text())
    assert account["prepare"]["attempts"] == 1, "what the first driver had prepared was found"
    end_of(train(folder, "whole"))
    assert_same_result(folder, "resumed", "whole")


# ---------------------------------------------------------------------------------------------------- autoscaling

NODES = """
import sys, time
import ray

ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
while True:
    alive = sum(node["Alive"] for node in ray.nodes())
    print("nodes", alive, flush=True)
    time.sleep(0.5)
"""


FAKE_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
"""Named as an external one: by its own name Ray looks for defaults in a file that is not in its wheel."""


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a head without CPUs, whose autoscaler adds nodes of one CPU (Ray's fake provider) up to two."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    workers = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    config: dict[str, Any] = {
        "cluster_name": "growing", "max_workers": 2, "idle_timeout_minutes": 0.05, "upscaling_speed": 10,
        "provider": {"type": "external", "module": FAKE_PROVIDER, "use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, "worker": workers,
        },
        "head_node_type": "ray.head.default", "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
        "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [], "initialization_commands": [],
        "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }  # fmt: skip
    port = heads.free_port()
    config["provider"] |= {
        "gcs_address": f"127.0.0.1:{port}",
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
    }
    (tmp_path / "autoscaler.json").write_text(json.dumps(config))
    variables = {  # the last three as `ray up` sets them
        "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_NODE_TYPE_NAME": "ray.head.default",
    }  # fmt: skip
    option = f"--autoscaling-config={tmp_path / 'autoscaler.json'}"
    with heads.head(Path(sys.executable), option, port=port, cpus=0, variables=variables) as one:
        yield one.address


@pytest.mark.slow
def test_nodes_come_with_the_work_and_go_without_it(folder: Path, growing: str):
    """No node but the head, then as many as two workers need, then none."""
    counts: list[int] = []
    variables = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_SCHEDULER_EVENTS": "0"}
    watcher = subprocess.Popen(
        [sys.executable, "-c", NODES, growing], env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )  # fmt: skip

    def now() -> int:
        counts.append(
            next(int(line.split()[1]) for line in watcher.stdout if line.startswith("nodes "))
        )  # Ray speaks, too
        return counts[-1]

    try:
        assert now() == 1
        process = train(folder, "grown", address=growing)
        wait_until(lambda: now() == 3 or process.poll() is not None, "three nodes")
        end_of(process)
        assert finished(run_of(folder, "grown") / "model")
        wait_until(lambda: now() == 1, "the head alone")
    finally:
        watcher.kill()
    assert max(counts) == 3
