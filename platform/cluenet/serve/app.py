"""The Ray Serve application: `cluenet.serve.app:build` with typed arguments, for `serve run`, `serve deploy` and KubeRay.

Ray hands `args:` to `build` as an `AppArgs` because its parameter is annotated with that class itself: without it, or with the
annotations turned into text (`from __future__ import annotations`), it would be an unchecked dict.
"""

from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from cluenet.config.serve import Deployment, Limits, ServeSection
from cluenet.model.checkpoint import check_pruning
from cluenet.serve import metrics, routing
from cluenet.serve.api import build_app
from cluenet.serve.arguments import DECODING, ENGINE, INGRESS, AppArgs, options
from cluenet.serve.auth import read_keys
from cluenet.serve.decoding_deployment import DecodingReplica
from cluenet.serve.engine_deployment import EngineReplica
from cluenet.serve.service import ServedModel, Service


def build(args: AppArgs) -> Application:
    """Ingress, decoding and engine, which scale apart. Raises CheckpointError for a folder that is no model,
    RecipeError where its answers cannot be pruned as they are to be, CluenetError where keys are asked for and there are none."""
    return application(args, EngineReplica)


def application(args: AppArgs, engine_replica: type) -> Application:
    """`build` with another class for the engine, such as one that only sleeps, to measure what surrounds it."""
    section = args.serve
    ServedModel.of(args.model, section.model_name)  # before any replica starts
    check_pruning(args.model, section.pruning, section="serve")
    read_keys(section.keys_variable)
    decoding = _deployment(DecodingReplica, DECODING, section.decoding, section.limits)
    engine = _deployment(engine_replica, ENGINE, section.engine, section.limits).options(
        request_router_config=routing.by_clip()
    )
    ingress = _deployment(serve.ingress()(Ingress), INGRESS, section.ingress, section.limits)
    return ingress.bind(args.model, section, engine.bind(args.model, section), decoding.bind(args.model, section))


def _deployment(replica: type, name: str, settings: Deployment, limits: Limits) -> serve.Deployment:
    return serve.deployment(replica, name=name).options(**options(settings, limits))


class Ingress:
    """HTTP, admission, spooling, and the way to the replica that has the clip."""

    def __init__(self, model: str, section: ServeSection, engine: DeploymentHandle, decoding: DeploymentHandle):
        backend = routing.RayBackend(
            engine, decoding, others=_ingress, retried=lambda: self.service.numbers.retries.inc()
        )
        node = ray.get_runtime_context().get_node_id()
        self.service = Service(backend, ServedModel.of(model, section.model_name), section, node=node)
        self.keys = read_keys(section.keys_variable)

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self.service, self.keys)

    def metrics(self) -> tuple[str, list[metrics.Family]]:
        return metrics.replica_id(), metrics.families(self.service.numbers.registry)


def _ingress() -> DeploymentHandle:
    return serve.get_deployment_handle(INGRESS, app_name=serve.get_replica_context().app_name)
