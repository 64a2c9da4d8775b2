"""Files of Ray's cluster launcher (`ray up`), checked whole: all problems at once, and inside `provider` and `node_config` too.

Ray 2.60 stops at the first problem and lets any key pass there. Format: `ray/autoscaler/ray-schema.json`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from pydantic import BaseModel, Field, create_model

from cluenet.clusterfiles.clouds import CLOUDS, LocalProvider
from cluenet.clusterfiles.strict import Command, Strict, below, read
from cluenet.errors import Problem, RecipeError, suggestion

MARKS = ("cluster_name", "provider", "available_node_types")
"""Keys that these files have and no other kind has."""


class Auth(Strict):
    ssh_user: str = "ubuntu"
    ssh_public_key: str | None = None
    ssh_private_key: str | None = None
    ssh_proxy_command: str | None = None
    ssh_proxy_use_node_id: bool = False


class Docker(Strict):
    image: str | None = None
    container_name: str | None = None
    pull_before_run: bool = True
    run_options: list[str] = Field(default_factory=list)
    head_image: str | None = None
    head_run_options: list[str] = Field(default_factory=list)
    worker_image: str | None = None
    worker_run_options: list[str] = Field(default_factory=list)
    disable_automatic_runtime_detection: bool = False
    disable_shm_size_detection: bool = False
    use_podman: bool = False


class NodeDocker(Strict):
    pull_before_run: bool = True
    worker_image: str | None = None
    worker_run_options: list[str] = Field(default_factory=list)


class NodeType(Strict):
    node_config: dict[str, Any]
    resources: dict[str, int]
    min_workers: int = Field(0, ge=0)
    max_workers: int | None = Field(None, ge=0)
    idle_timeout_s: float | None = None
    priority: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    initialization_commands: Command = Field(default_factory=list)
    worker_setup_commands: Command = Field(default_factory=list)
    docker: NodeDocker = Field(default_factory=NodeDocker)


class _Cluster(Strict):
    cluster_name: str
    max_workers: int | None = Field(None, ge=0)
    upscaling_speed: float = Field(1, gt=0)
    idle_timeout_minutes: float = Field(5, gt=0)
    provider: dict[str, Any]
    auth: Auth = Field(default_factory=Auth)
    docker: Docker = Field(default_factory=Docker)
    file_mounts: dict[str, str] = Field(default_factory=dict, description="Path there: path here.")
    cluster_synced_files: list[str] = Field(default_factory=list)
    file_mounts_sync_continuously: bool = False
    rsync_exclude: list[str] = Field(default_factory=list)
    rsync_filter: list[str] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    initialization_commands: Command = Field(default_factory=list)
    setup_commands: Command = Field(default_factory=list)
    head_setup_commands: Command = Field(default_factory=list)
    worker_setup_commands: Command = Field(default_factory=list)
    head_start_ray_commands: Command = Field(default_factory=list)
    worker_start_ray_commands: Command = Field(default_factory=list)


class CloudCluster(_Cluster):
    available_node_types: dict[str, NodeType]
    head_node_type: str


LocalCluster = create_model("LocalCluster", __base__=_Cluster, min_workers=(int | None, Field(None, ge=0)))
"""Of machines that are there already, reached by ssh: no node types, and `min_workers` for all."""


def check(values: Mapping[str, Any], file: str) -> None:
    """Raises RecipeError with every problem; then also what Ray's own checks say."""
    problems = list(problems_of_cluster(values))
    if problems:
        raise RecipeError(file, problems)
    if said := _ray_refuses(values):
        raise RecipeError(file, [Problem("", f"Ray refuses it: {said}")])


def problems_of_cluster(values: Mapping[str, Any]) -> Iterator[Problem]:
    provider = values.get("provider")
    cloud = provider.get("type") if isinstance(provider, Mapping) else None
    if cloud not in CLOUDS:
        yield Problem("provider.type", f"{cloud!r} is not one that can be checked. {suggestion(str(cloud), CLOUDS)}")
        return
    of_provider, of_node = CLOUDS[cloud]
    found: list[Problem] = []
    cluster = read(CloudCluster if of_node else LocalCluster, values, "", found)
    of_machines = read(of_provider, provider, "provider", found)
    if of_node:
        _read_nodes(of_node, values.get("available_node_types"), found)
    if isinstance(cluster, CloudCluster):
        found.extend(_misfits(cluster))
    if isinstance(of_machines, LocalProvider):
        found.extend(_local_misfits(of_machines))
    if isinstance(cluster, _Cluster):
        found.extend(_docker_misfits(cluster.docker))
    yield from found


def _read_nodes(model: type[BaseModel], types: Any, problems: list[Problem]) -> None:
    for name, node in (types if isinstance(types, Mapping) else {}).items():
        if isinstance(node, Mapping) and isinstance(node.get("node_config"), Mapping):
            read(model, node["node_config"], below(f"available_node_types.{name}", "node_config"), problems)


def _misfits(cluster: CloudCluster) -> Iterator[Problem]:
    types = cluster.available_node_types
    if cluster.head_node_type not in types:
        yield Problem("head_node_type", f"no such node type. {suggestion(cluster.head_node_type, types)}")
    for name, node in types.items():
        if node.max_workers is not None and node.max_workers < node.min_workers:
            yield Problem(
                f"available_node_types.{name}.max_workers",
                f"is {node.max_workers}, below min_workers={node.min_workers}",
            )
    least = sum(node.min_workers for node in types.values())
    if cluster.max_workers is not None and cluster.max_workers < least:
        yield Problem("max_workers", f"is {cluster.max_workers}, but the node types' min_workers add up to {least}")


def _local_misfits(provider: LocalProvider) -> Iterator[Problem]:
    if provider.coordinator_address is None and (provider.head_ip is None or provider.worker_ips is None):
        yield Problem("provider", "needs head_ip and worker_ips, or coordinator_address")


def _docker_misfits(docker: Docker) -> Iterator[Problem]:
    image = docker.image or (docker.head_image and docker.worker_image)
    if bool(image) != bool(docker.container_name):
        missing = "container_name" if image else "image"
        yield Problem(f"docker.{missing}", "is required: Ray wants both image and container_name, or no docker at all")


def _ray_refuses(values: Mapping[str, Any]) -> str | None:
    """What Ray's schema and filling in of defaults say, as `ray up` runs them; None when they accept the file."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)  # it names every default
    try:
        with redirect_stderr(StringIO()):  # what it says is in its error, too
            validate_config(prepare_config(dict(values)))
    except Exception as error:
        return str(error).splitlines()[0] if str(error) else repr(error)
    return None
