"""Joins a Ray cluster, or starts a local one, so that workers find the driver's code; says at once what cannot work.

`ray.init` of Ray 2.60 waits up to 40 s for an address that does not answer and 20 s for a wrong token, and then says
little; so the address is tried first, in a process of its own that can be ended (`try_address`).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cluenet.errors import ClusterError, PluginError

CONNECT_SECONDS = 12.0
"""How long an address may take to answer."""

REFUSALS = (ConnectionError, RuntimeError, ValueError, TimeoutError)
"""What `ray.init` raises when it cannot; besides a bare Exception, of a node that is too slow to start."""

_TRY_GCS = """
import sys
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient
GcsClient(address=canonicalize_bootstrap_address_or_die(sys.argv[1])).internal_kv_get(b"cluenet", namespace=b"cluenet")
"""


@contextmanager
def connected(
    address: str | None = None, *, verbose: bool = False, plugins: Iterable[str] = ()
) -> Iterator[dict[str, float]]:
    """`connect`, and `ray.shutdown` at the end of the block. Inside an existing connection it changes nothing."""
    import ray

    mine = not ray.is_initialized()
    resources = connect(address, verbose=verbose, plugins=plugins)
    try:
        yield resources
    finally:
        if mine:
            ray.shutdown()


def connect(address: str | None = None, *, verbose: bool = False, plugins: Iterable[str] = ()) -> dict[str, float]:
    """Join `address`, else the cluster in RAY_ADDRESS, else start a local one; returns the cluster's resources.

    plugins: modules of the recipe's `plugins:`, sent along to workers. verbose: show Ray's and the workers' logs.
    Raises ClusterError within about 15 s when the cluster cannot be reached or refuses us.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    remote = address != "local"
    if remote:
        _check_kind(address)
        use_token_if_there_is_one()
    import ray

    if ray.is_initialized():
        return dict(ray.cluster_resources())
    if remote:
        try_address(address)
    _join(address, verbose=verbose, plugins=tuple(plugins))
    return dict(ray.cluster_resources())


def _join(address: str, *, verbose: bool, plugins: tuple[str, ...]) -> None:
    import ray

    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    environment = runtime_env(remote=address != "local", plugins=plugins)
    try:
        with nullcontext() if verbose else _silent_core():
            ray.init(
                address=address,
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
                runtime_env=environment,
                **local,
            )
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, REFUSALS):
            raise
        what = "a local Ray cannot be started" if address == "local" else f"Ray cluster {address!r} refuses us"
        raise ClusterError(f"{what}: {error}. With --verbose Ray's own messages are shown.") from error


@contextmanager
def _silent_core() -> Iterator[None]:
    """Ray's core writes to the terminal past Python: that its log level was set, while it starts, and later errors that are
    none, into the middle of a live table."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def _check_kind(address: str) -> None:
    kinds = {
        "ray://": "an address of Ray Client, which Ray Data and Ray Train do not support. Run cluenet on a machine of the "
        "cluster with RAY_ADDRESS=auto, or submit it there with `cluenet submit`",
        "http://": "an address of the dashboard, which is for `cluenet submit`. Give HOST:PORT of the head, such as 10.0.0.1:6379",
        "https://": "an address of the dashboard, which is for `cluenet submit`. Give HOST:PORT of the head, such as 10.0.0.1:6379",
    }
    for prefix, what in kinds.items():
        if address.startswith(prefix):
            raise ClusterError(f"Ray address {address!r} is {what}.")


def use_token_if_there_is_one() -> None:
    """Ray 2.60 uses a token by itself only for a local cluster; an open cluster does not mind one, a closed one needs it."""
    file = os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_MODE" not in os.environ and ("RAY_AUTH_TOKEN" in os.environ or Path(file).is_file()):
        os.environ["RAY_AUTH_MODE"] = "token"
        if "ray" in sys.modules:  # it read the mode when it was imported
            from ray._raylet import Config

            Config.initialize("")  # as `authentication_token_setup._enable_token_auth` of Ray does


def try_address(address: str) -> None:
    """Raises ClusterError when no Ray answers at `address`, or when it wants another token."""
    _try_socket(address)
    command = [sys.executable, "-c", _TRY_GCS, address]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=CONNECT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(_no_answer(address, f"it did not answer as Ray within {CONNECT_SECONDS:.0f} s")) from None
    if "AuthenticationError" in result.stderr:
        raise ClusterError(
            f"Ray cluster {address!r} wants a token and did not accept ours. Put the cluster's token (`ray get-auth-token` on "
            "its head) into ~/.ray/auth_token or RAY_AUTH_TOKEN here, and set RAY_AUTH_MODE=token."
        )
    if result.returncode:
        raise ClusterError(_no_answer(address, (result.stderr.strip().splitlines() or ["no reason given"])[-1]))


def _try_socket(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        if address != "auto":
            raise ClusterError(f"Ray address {address!r} is not HOST:PORT, `auto` or `local`.")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(_no_answer(address, str(error))) from None


def _no_answer(address: str, why: str) -> str:
    return (
        f"no Ray cluster answers at {address!r}: {why}. Check the address (--address or RAY_ADDRESS) and that the head runs "
        "(`ray status` there; `ray start --head` starts one). Without an address cluenet starts Ray on this machine."
    )


def runtime_env(*, remote: bool, plugins: Iterable[str] = ()) -> dict[str, Any]:
    """What makes workers find the driver's `cluenet`, its components and the recipe's plug-ins.

    On this machine a PYTHONPATH is enough; to another one the packages are sent along. A job keeps the environment that
    `ray job submit` gave it: Ray refuses two.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    modules = list(dict.fromkeys(["cluenet", "cluenet_components", *(name.partition(".")[0] for name in plugins)]))
    locations = [_location(module) for module in modules]
    if remote:
        return {"py_modules": [str(location) for location in locations]}
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    roots = [str(location.parent) for location in locations] + [str(Path(path).resolve()) for path in inherited if path]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(dict.fromkeys(roots))}}


def _location(module: str) -> Path:
    """The folder of a package, or the file of a single module."""
    spec = importlib.util.find_spec(module)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise PluginError(f"module {module!r} is named in `plugins:` but is not importable here.")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(str(spec.origin)).resolve()


def summary(resources: Mapping[str, float]) -> str:
    """ "16 CPU, 1 GPU, 42.1 GiB memory on 2 nodes"."""
    nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in resources)
    parts = [f"{resources.get('CPU', 0):g} CPU"]
    if resources.get("GPU"):
        parts.append(f"{resources['GPU']:g} GPU")
    parts.append(f"{resources.get('memory', 0) / 2**30:.1f} GiB memory")
    return f"{', '.join(parts)} on {nodes} node{'s' if nodes != 1 else ''}"


def require(*, workers: int, cpu: float, gpu: float) -> None:
    """Raises ClusterError when `workers` processes of `cpu` CPUs and `gpu` GPUs each can never run here at once.

    Ray itself would wait for ever. On a cluster that grows by itself the largest size it may reach counts.
    """
    import ray

    from cluenet.ray_data import capacity

    have, now = capacity(), ray.cluster_resources()
    if have is None:
        return
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]] if have == now else None
    problem = lacking(workers, cpu, gpu, total=have, nodes=alive)
    if problem:
        raise ClusterError(problem)


def lacking(
    workers: int, cpu: float, gpu: float, *, total: Mapping[str, float], nodes: list[Mapping[str, float]] | None
) -> str | None:
    """What a request has too much of, in words; None when it fits. `nodes`: resources of each one, if they are known."""
    for name, key, each in (("CPU", "cpu", cpu), ("GPU", "gpu", gpu)):
        have, fix = (
            total.get(name, 0),
            f"Lower train.resources.{key} or train.workers, or join a larger cluster (--address).",
        )
        if workers * each > have:
            want = f"train.workers={workers} x train.resources.{key}={each:g}"
            return f"{want} asks for {workers * each:g} {name}, but the cluster has {have:g}. {fix}"
        largest = max((node.get(name, 0) for node in nodes), default=0) if nodes is not None else have
        if each > largest:
            return f"train.resources.{key}={each:g} fits on no node: the largest has {largest:g} {name}. {fix}"
    if nodes is not None and workers > (places := sum(_places(node, cpu, gpu) for node in nodes)):
        return (
            f"train.workers={workers} with train.resources {cpu:g} CPU and {gpu:g} GPU each: only {places} fit on the nodes. "
            "Lower train.workers or train.resources, or join a larger cluster (--address)."
        )
    return None


def _places(node: Mapping[str, float], cpu: float, gpu: float) -> int:
    fits = [int((node.get(name, 0) + 1e-9) // each) for name, each in (("CPU", cpu), ("GPU", gpu)) if each > 0]
    return min(fits)
