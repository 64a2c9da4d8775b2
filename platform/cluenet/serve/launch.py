"""`cluenet serve`: a model folder as an endpoint on this machine or a cluster, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluenet.config.serve import ServeSection
from cluenet.errors import CheckpointError, ClusterError, Problem, RecipeError
from cluenet.model.checkpoint import CONFIG, RECIPE
from cluenet.recipe import overridden
from cluenet.serve.arguments import APP, AppArgs

LESS_OVERHEAD = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000", "RAY_SERVE_LOG_TO_STDERR": "0", "RAY_SERVE_PROXY_USE_GRPC": "1",
}  # fmt: skip
"""Of Ray Serve 2.60, whose defaults guard against code that blocks, which ours does not; docs/serving.md has what they save."""


def lower_overhead() -> None:
    """For a Ray that is started afterwards. What the user has set stays."""
    for name, value in LESS_OVERHEAD.items():
        os.environ.setdefault(name, value)


def model_folder(path: Path) -> Path:
    """The model folder in `path`, or below it where it is a run. Raises CheckpointError."""
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            return folder.absolute()
    raise CheckpointError(
        f"{path}: neither a ClueNet model folder ({CONFIG}), a finished run (model/{CONFIG}) nor a Hugging Face folder "
        "(config.json). Give the folder that `cluenet run` or `cluenet train` named at its end."
    )


def arguments(model: Path, overrides: Sequence[str]) -> AppArgs:
    """What to serve, and how: the section `serve:` of the model's recipe with `serve.key=value` overrides.

    Raises RecipeError for any other override: the rest of the recipe is how the model was trained.
    """
    if wrong := [one for one in overrides if not one.startswith("serve.")]:
        problems = [
            Problem(one.partition("=")[0], "is not a setting of the endpoint; those start with `serve.`")
            for one in wrong
        ]
        raise RecipeError("the command line", problems)
    trained = yaml.safe_load((model / RECIPE).read_text()) if (model / RECIPE).is_file() else {}
    recipe = overridden({"serve": trained.get("serve", {})}, overrides, file=str(model / RECIPE))
    return AppArgs(model=str(model), serve=recipe.serve)


def serve_until_stopped(args: AppArgs, say: Callable[[str], None]) -> None:
    """Starts the endpoint in the Ray that is connected, says where it is, and ends it at Ctrl-C or SIGTERM."""
    from ray import serve

    _check_room(args.serve)
    with _asked_to_stop() as stopped:
        try:
            start(args)
            say(_how_to_ask(args))
            while not stopped.wait(1.0):
                pass
            say("stopping: requests under way are answered")
        finally:
            serve.shutdown()


def start(args: AppArgs) -> None:
    """Starts Serve's HTTP proxies where there are none, and the application; returns when it answers. Where it runs already,
    its replicas are replaced one after the other.

    Raises ClusterError where it does not start, and what `build` raises before anything does.
    """
    from ray import serve

    from cluenet.serve.app import build

    application = build(args)
    try:
        serve.start(http_options={"host": args.serve.host, "port": args.serve.port})
        serve.run(application, name=APP, route_prefix="/")
    except RuntimeError as error:
        raise ClusterError(
            f"the endpoint does not start: {error} With --verbose the logs of its replicas are shown."
        ) from None


def _check_room(section: ServeSection) -> None:
    """Ray would wait for ever for CPUs that are not there. On a cluster that grows by itself the largest size counts."""
    from cluenet.ray_data import capacity

    have = capacity()
    if have is None:
        return
    for name, key in (("CPU", "cpu"), ("GPU", "gpu")):
        parts = {part: getattr(section, part) for part in ("ingress", "decoding", "engine")}
        need = sum(getattr(one, key) * max(1, one.autoscaling.min_replicas) for one in parts.values())
        if need > have.get(name, 0):
            raise ClusterError(
                f"the endpoint needs {need:g} {name} at least and the cluster has {have.get(name, 0):g} at most. Lower "
                f"serve.<{'|'.join(parts)}>.{key} or autoscaling.min_replicas, or join a larger cluster (--address)."
            )


def _how_to_ask(args: AppArgs) -> str:
    host = "127.0.0.1" if args.serve.host in ("0.0.0.0", "::") else args.serve.host
    url = f"http://{host}:{args.serve.port}"
    key = f'-H "Authorization: Bearer ${args.serve.keys_variable}" ' if args.serve.keys_variable else ""
    form = " ".join(f"-F {shlex.quote(part)}" for part in ("video=@video.mp4", "question=why does it move ?"))
    return f"{url} answers (Ctrl-C stops it). A page to try it is there. Or:\n  curl {key}{url}/v1/videoqa {form}"


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM, which then raise nothing."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
