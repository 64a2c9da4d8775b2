"""What the application is made from: its typed arguments, and its deployments' settings under Ray Serve's names. Ray-free."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cluenet.config.serve import Deployment, Limits, ServeSection

APP = "cluenet"
INGRESS, DECODING, ENGINE = "Ingress", "Decoding", "Engine"


class AppArgs(BaseModel):
    """`args:` of the application in a Serve config."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model folder; every node reads it under this path.")
    serve: ServeSection = Field(default_factory=ServeSection, description="The section `serve:` of a recipe.")


def options(settings: Deployment, limits: Limits) -> dict[str, Any]:
    """A deployment's settings under Ray Serve's names. A replica that is replaced ends the requests that it has."""
    return {
        "max_ongoing_requests": settings.max_ongoing_requests,
        "autoscaling_config": settings.autoscaling.model_dump(),
        "ray_actor_options": {"num_cpus": settings.cpu, "num_gpus": settings.gpu},
        "graceful_shutdown_timeout_s": limits.request_timeout_seconds,
    }
