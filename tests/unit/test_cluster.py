"""Reaching a cluster: what cannot work is said at once, with the address and what to try. Without starting Ray."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluenet import cluster
from cluenet.errors import ClusterError, PluginError


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at '127.0.0.1:{port}'.*ray status"):
        cluster.connect(f"127.0.0.1:{port}")
    assert time.monotonic() - started < 15


def test_a_port_where_something_else_listens(silent_port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2.0)
    with pytest.raises(ClusterError, match="did not answer as Ray within 2 s"):
        cluster.connect(f"127.0.0.1:{silent_port}")


def test_the_environment_gives_an_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1"):
        cluster.connect()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "Ray Client, which Ray Data and Ray Train do not support"),
        ("http://head:8265", "dashboard"),
        ("head", "is not HOST:PORT"),
        ("no.such.host.invalid:6379", "no Ray cluster answers"),
        ("127.0.0.1:99999", "no Ray cluster answers"),
    ],
)
def test_addresses_of_another_kind(address: str, message: str):
    with pytest.raises(ClusterError, match=message):
        cluster.connect(address)


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("ray.exceptions.AuthenticationError: InvalidAuthToken", "wants a token"),
        ("Traceback\nValueError: odd", "ValueError: odd"),
    ],
)
def test_refusals_are_translated(silent_port: int, stderr: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "_TRY_GCS", f"import sys; sys.exit({stderr!r})")
    with pytest.raises(ClusterError, match=message):
        cluster.connect(f"127.0.0.1:{silent_port}")


def test_a_local_ray_that_is_too_slow_to_start(monkeypatch: pytest.MonkeyPatch):
    import ray

    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out during startup")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(ClusterError, match="a local Ray cannot be started: The current node timed out"):
        cluster.connect()


def test_a_fault_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch):
    import ray

    def wrong(**_: object) -> None:
        raise TypeError("unexpected keyword")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", wrong)
    with pytest.raises(TypeError):
        cluster.connect()


def test_a_token_at_hand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "x")  # so that it is put back
        monkeypatch.delenv(name)
    cluster.use_token_if_there_is_one()
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / "token").write_text("secret")
    cluster.use_token_if_there_is_one()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster.use_token_if_there_is_one()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


# ------------------------------------------------------------------------------------------------- what fits

TWO_NODES = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}]
TOTAL = {"CPU": 6.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("workers", "cpu", "gpu", "problem"),
    [
        (1, 1, 0, None),
        (6, 1, 0, None),
        (12, 0.5, 0, None),
        (1, 4, 1, None),
        (1, 0.1, 0, None),
        (7, 1, 0, "asks for 7 CPU, but the cluster has 6"),
        (1, 5, 0, "fits on no node: the largest has 4 CPU"),
        (2, 1, 1, "asks for 2 GPU, but the cluster has 1"),
        (2, 3, 0, "only 1 fit on the nodes"),
        (3, 2, 0, None),
    ],
)
def test_a_request_is_compared_with_the_nodes(workers: int, cpu: float, gpu: float, problem: str | None):
    found = cluster.lacking(workers, cpu, gpu, total=TOTAL, nodes=TWO_NODES)
    assert (found is None) if problem is None else (problem in str(found))


def test_of_a_growing_cluster_only_the_largest_size_is_known():
    assert cluster.lacking(2, 3, 0, total=TOTAL, nodes=None) is None
    assert cluster.lacking(2, 4, 0, total=TOTAL, nodes=None) is not None


def test_the_summary_counts_nodes():
    resources = {"CPU": 4.0, "memory": 2**31, "node:1.2.3.4": 1.0, "node:5.6.7.8": 1.0, "node:__internal_head__": 1.0}
    assert cluster.summary(resources) == "4 CPU, 2.0 GiB memory on 2 nodes"
    assert cluster.summary({"CPU": 4.0, "GPU": 2.0, "node:1.2.3.4": 1.0}) == "4 CPU, 2 GPU, 0.0 GiB memory on 1 node"


# ------------------------------------------------------------------------------------------------- code on workers


def test_workers_here_get_a_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    paths = cluster.runtime_env(remote=False)["env_vars"]["PYTHONPATH"].split(os.pathsep)
    assert all((Path(paths[index]) / name).is_dir() for index, name in enumerate(("cluenet", "cluenet_components")))
    assert paths[-1] == str(Path("somewhere").resolve())


def test_workers_elsewhere_get_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plugin_file.py").touch()
    (tmp_path / "plugin_package").mkdir()
    (tmp_path / "plugin_package" / "__init__.py").touch()
    modules = cluster.runtime_env(remote=True, plugins=["plugin_file", "plugin_package.deep"])["py_modules"]
    assert [Path(module).name for module in modules] == [
        "cluenet",
        "cluenet_components",
        "plugin_file.py",
        "plugin_package",
    ]
    assert all(Path(module).exists() for module in modules)


def test_a_plugin_that_is_nowhere_is_named():
    with pytest.raises(PluginError, match="no_such_plugin"):
        cluster.runtime_env(remote=True, plugins=["no_such_plugin"])


def test_a_job_keeps_the_environment_it_was_submitted_with(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert cluster.runtime_env(remote=True) == {}


NOW = {"CPU": 4.0, "node:a": 1.0}


@pytest.mark.parametrize(
    ("config", "grows", "expected"),
    [(None, False, NOW), ({"CPU": 2, "GPU": 8}, True, {"CPU": 4.0, "GPU": 8, "node:a": 1.0}), (None, True, None)],
)
def test_a_cluster_that_grows_by_itself_counts_as_what_it_may_become(
    config: dict[str, int] | None, grows: bool, expected: dict[str, float] | None, monkeypatch: pytest.MonkeyPatch
):
    """A head without CPUs and workers from zero: what is there at the start is nothing."""
    import ray
    from ray._private.state import state
    from ray.autoscaler.v2 import utils

    from cluenet.ray_data import capacity

    monkeypatch.setattr(ray, "cluster_resources", lambda: NOW)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": NOW}])
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: config)
    monkeypatch.setattr(utils, "is_autoscaler_v2", lambda fetch_from_server: grows)
    assert capacity() == expected
    if expected == NOW:
        with pytest.raises(ClusterError, match="asks for 8 GPU, but the cluster has 0"):
            cluster.require(workers=8, cpu=0, gpu=1)
    else:
        cluster.require(workers=8, cpu=0, gpu=1)


# ------------------------------------------------------------------------------------------------- what is seen


def test_what_rays_core_writes_past_python_is_not_seen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "x")  # so that it is put back
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL")
    with pytest.raises(ConnectionError), cluster._silent_core():
        os.write(2, b"Set ray log level\n")
        assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "fatal"
        raise ConnectionError
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"
