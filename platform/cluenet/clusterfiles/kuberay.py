"""Checks a KubeRay file whole. `kubectl apply` drops keys that KubeRay does not know, with a warning at most, and what is
written as text inside (`runtimeEnvYAML`, `serveConfigV2`) it never reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml
from pydantic import BaseModel

from cluenet.clusterfiles import pods
from cluenet.clusterfiles.kuberay_models import ClusterSpec, JobSpec, RayCluster, RayJob, RayService, ServiceSpec
from cluenet.clusterfiles.strict import below, read, unknown
from cluenet.errors import Problem, RecipeError, suggestion
from cluenet.serve import export

MARKS = ("apiVersion", "kind")
KINDS: dict[str, type[BaseModel]] = {"RayCluster": RayCluster, "RayJob": RayJob, "RayService": RayService}


def check(values: Mapping[str, Any], file: str) -> None:
    """Raises RecipeError with every problem."""
    if problems := list(problems_of_resource(values)):
        raise RecipeError(file, problems)


def problems_of_resource(values: Mapping[str, Any]) -> Iterator[Problem]:
    kind = str(values.get("kind"))
    if kind not in KINDS:
        yield Problem("kind", f"{kind!r} is not one that can be checked. {suggestion(kind, KINDS)}")
        return
    found: list[Problem] = []
    resource = read(KINDS[kind], values, "", found)
    yield from found
    spec = values.get("spec")
    if isinstance(spec, Mapping):
        yield from _of_texts(spec)
    if isinstance(resource, RayCluster):
        yield from _of_cluster(resource.spec, "spec")
    elif isinstance(resource, RayJob):
        yield from _of_job(resource.spec)
    elif isinstance(resource, RayService):
        yield from _of_service(resource.spec)


def _of_texts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """YAML that stands in the file as text; also where the rest of the file is wrong."""
    if isinstance(text := spec.get("runtimeEnvYAML"), str) and text:
        yield from _of_runtime_env(text)
    if isinstance(text := spec.get("serveConfigV2"), str):
        yield from _of_serve_config(text)


def _of_runtime_env(text: str) -> Iterator[Problem]:
    from ray.runtime_env import RuntimeEnv

    at = "spec.runtimeEnvYAML"
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield Problem(at, f"cannot be read as YAML: {error}")
        return
    if not isinstance(values, Mapping):
        yield Problem(at, f"is a map of a runtime environment, not {type(values).__name__}")
    else:
        yield from unknown(values, frozenset(RuntimeEnv.known_fields), at)


def _of_serve_config(text: str) -> Iterator[Problem]:
    at = "spec.serveConfigV2"
    try:
        export.check_values(yaml.safe_load(text), at)
    except yaml.YAMLError as error:
        yield Problem(at, f"cannot be read as YAML: {error}")
    except RecipeError as error:
        yield from (Problem(below(at, one.path), one.message) for one in error.problems)


def _of_job(spec: JobSpec) -> Iterator[Problem]:
    if (spec.rayClusterSpec is None) == (not spec.clusterSelector):
        yield Problem(
            "spec", "needs one of rayClusterSpec (a cluster of its own) and clusterSelector (one that is there)"
        )
    if not spec.entrypoint and spec.submissionMode != "InteractiveMode":
        yield Problem("spec.entrypoint", "is required, such as `python -m cluenet run recipes/quickstart.yaml`")
    if spec.ttlSecondsAfterFinished and not spec.shutdownAfterJobFinishes:
        yield Problem("spec.ttlSecondsAfterFinished", "has no effect without shutdownAfterJobFinishes: true")
    if spec.backoffLimit and spec.clusterSelector:
        yield Problem("spec.backoffLimit", "needs rayClusterSpec: every attempt has a cluster of its own")
    if spec.submitterPodTemplate:
        yield from pods.misfits(spec.submitterPodTemplate, "spec.submitterPodTemplate")
    if spec.rayClusterSpec:
        yield from _of_cluster(spec.rayClusterSpec, "spec.rayClusterSpec")


def _of_service(spec: ServiceSpec) -> Iterator[Problem]:
    yield from _of_cluster(spec.rayClusterConfig, "spec.rayClusterConfig")


def _of_cluster(spec: ClusterSpec, at: str) -> Iterator[Problem]:
    groups = [("headGroupSpec", spec.headGroupSpec)]
    groups += [(f"workerGroupSpecs.{i}", group) for i, group in enumerate(spec.workerGroupSpecs)]  # type: ignore[misc]
    for path, group in groups:
        yield from unknown(group.rayStartParams, start_options(), f"{at}.{path}.rayStartParams")
        yield from pods.misfits(group.template, f"{at}.{path}.template")
    yield from _of_workers(spec, at)


def _of_workers(spec: ClusterSpec, at: str) -> Iterator[Problem]:
    names = [group.groupName for group in spec.workerGroupSpecs]
    for i, group in enumerate(spec.workerGroupSpecs):
        path = f"{at}.workerGroupSpecs.{i}"
        if names.count(group.groupName) > 1:
            yield Problem(f"{path}.groupName", f"{group.groupName!r} is the name of another group too")
        if not group.minReplicas <= group.replicas <= group.maxReplicas:
            counts = f"minReplicas={group.minReplicas} to maxReplicas={group.maxReplicas}"
            yield Problem(f"{path}.replicas", f"is {group.replicas}, outside of {counts}")
        if group.idleTimeoutSeconds is not None and not spec.enableInTreeAutoscaling:
            yield Problem(f"{path}.idleTimeoutSeconds", f"has no effect without {at}.enableInTreeAutoscaling: true")
    if spec.autoscalerOptions and not spec.enableInTreeAutoscaling:
        yield Problem(f"{at}.autoscalerOptions", "has no effect without enableInTreeAutoscaling: true")


@cache
def start_options() -> frozenset[str]:
    """Options of `ray start` without their dashes: what `rayStartParams` may hold."""
    from ray.scripts.scripts import start

    return frozenset(option.removeprefix("--") for one in start.params for option in one.opts)
