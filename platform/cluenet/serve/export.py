"""A Ray Serve config file: for `serve deploy`, and as KubeRay's `serveConfigV2`. Ray 2.60 drops keys that it does not know
without a word, so files are checked against the models here. Format: `ray.serve.schema.ServeDeploySchema`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluenet.errors import Problem, RecipeError
from cluenet.folders import atomic_write_text
from cluenet.problems import problems_of
from cluenet.serve.arguments import APP, DECODING, ENGINE, INGRESS, AppArgs, options

IMPORT_PATH = "cluenet.serve.app:build"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AutoscalingConfig(_Strict):
    min_replicas: int = Field(1, ge=0)
    initial_replicas: int | None = Field(None, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(2, gt=0)
    look_back_period_s: float = Field(30, gt=0)
    upscale_delay_s: float = Field(30, ge=0)
    downscale_delay_s: float = Field(600, ge=0)
    downscale_to_zero_delay_s: float | None = Field(None, ge=0)
    upscaling_factor: float | None = Field(None, gt=0)
    downscaling_factor: float | None = Field(None, gt=0)


class RayActorOptions(_Strict):
    num_cpus: float = Field(1, ge=0)
    num_gpus: float = Field(0, ge=0)
    memory: float | None = Field(None, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)
    accelerator_type: str | None = None
    label_selector: dict[str, str] | None = None
    runtime_env: dict[str, Any] = Field(default_factory=dict)


class DeploymentConfig(_Strict):
    name: Literal["Ingress", "Decoding", "Engine"]
    max_ongoing_requests: int = Field(5, ge=1)
    max_queued_requests: int = -1
    autoscaling_config: AutoscalingConfig | None = None
    num_replicas: int | None = Field(None, ge=1)
    ray_actor_options: RayActorOptions = Field(default_factory=RayActorOptions)
    user_config: dict[str, Any] | None = None
    graceful_shutdown_wait_loop_s: float = Field(2, ge=0)
    graceful_shutdown_timeout_s: float = Field(20, ge=0)
    health_check_period_s: float = Field(10, gt=0)
    health_check_timeout_s: float = Field(30, gt=0)
    max_replicas_per_node: int | None = Field(None, ge=1)
    rolling_update_percentage: float | None = Field(None, gt=0, le=100)


class ApplicationConfig(_Strict):
    name: str
    route_prefix: str = "/"
    import_path: Literal["cluenet.serve.app:build"] = IMPORT_PATH
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    args: AppArgs
    deployments: list[DeploymentConfig] = Field(default_factory=list)


class HttpOptions(_Strict):
    host: str = "0.0.0.0"
    port: int = Field(8000, ge=0, le=65535)
    request_timeout_s: float | None = Field(None, gt=0)
    keep_alive_timeout_s: int = Field(90, ge=0)
    root_path: str = ""


class ServeConfig(_Strict):
    """The whole file."""

    proxy_location: Literal["EveryNode", "HeadOnly", "Disabled"] = "EveryNode"
    http_options: HttpOptions = Field(default_factory=HttpOptions)
    applications: list[ApplicationConfig]


def config_of(args: AppArgs) -> ServeConfig:
    """With every setting that differs from Ray's own default, to be read and changed."""
    section = args.serve
    parts = ((INGRESS, section.ingress), (DECODING, section.decoding), (ENGINE, section.engine))
    deployments = [DeploymentConfig(name=name, **options(one, section.limits)) for name, one in parts]  # type: ignore[arg-type]
    application = ApplicationConfig(name=APP, args=args, deployments=deployments)
    return ServeConfig(http_options=HttpOptions(host=section.host, port=section.port), applications=[application])


def write(path: str | Path, args: AppArgs) -> Path:
    """Raises StorageError."""
    values = config_of(args).model_dump(mode="json", exclude_unset=True)
    values = {"proxy_location": "EveryNode", **values}
    values["applications"][0] |= {"import_path": IMPORT_PATH, "route_prefix": "/", "args": args.model_dump(mode="json")}
    order = ("name", "route_prefix", "import_path", "args", "deployments")
    values["applications"][0] = {name: values["applications"][0][name] for name in order}
    return atomic_write_text(path, HEAD + yaml.safe_dump(values, sort_keys=False))


HEAD = """\
# Ray Serve config. On a cluster: serve deploy FILE. With KubeRay: the text below `serveConfigV2: |` of a RayService.
# Ray drops keys that it does not know without a word: check this file with `cluenet validate FILE` after every change.
# What stands in `deployments` wins over the same setting in `args.serve`.
"""


def check(path: str | Path) -> ServeConfig:
    """The config in a file. Raises RecipeError with every problem."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(str(path), [Problem("", f"cannot be read: {error}")]) from None
    return check_values(values, str(path))


def check_values(values: Any, file: str) -> ServeConfig:
    """The config of a file's content. Raises RecipeError with every problem, naming `file`."""
    try:
        config = ServeConfig.model_validate(values)
    except ValidationError as error:
        raise RecipeError(file, problems_of(error, ServeConfig)) from None
    if both := [
        Problem(
            f"applications.{a}.deployments.{d}", "has num_replicas and autoscaling_config; Ray refuses both: remove one"
        )
        for a, application in enumerate(config.applications)
        for d, one in enumerate(application.deployments)
        if one.num_replicas is not None and one.autoscaling_config is not None
    ]:
        raise RecipeError(file, both)
    return config
