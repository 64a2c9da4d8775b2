"""The verb that serves a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluenet.verbs.shared import Address, folder_beside, quiet_libraries, say, wrote


def serve(
    ctx: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_MODEL_DIR", help="Run, model folder, or a Hugging Face folder (zero-shot)."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[serve.KEY=VALUE]...", help="Settings of the endpoint.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write a Ray Serve config for `serve deploy` and KubeRay to this file instead.")
    ] = None,
    address: Address = None,
) -> None:
    """A trained model as an HTTP endpoint: OpenAI's chat completions, answers with their clues, a page. Ctrl-C stops it."""
    from cluenet.cluster import connected
    from cluenet.model.checkpoint import read_plugins
    from cluenet.serve import export as exporting
    from cluenet.serve import launch
    from cluenet.serve.auth import read_keys

    quiet_libraries()
    if (model / "config.json").is_file() and not (model / "model_config.json").is_file():
        model = _zero_shot(model, [one for one in overrides or () if not one.startswith("serve.")])
        overrides = [one for one in overrides or () if one.startswith("serve.")]
    folder = launch.model_folder(model)
    args = launch.arguments(folder, overrides or ())
    if export is not None:
        wrote([exporting.write(export, args)])
        return
    read_keys(args.serve.keys_variable)  # before Ray starts
    launch.lower_overhead()
    with connected(address, verbose=bool(ctx.obj), plugins=read_plugins(folder)):
        launch.serve_until_stopped(args, say)


def _zero_shot(base: Path, overrides: list[str]) -> Path:
    """A model folder of a Hugging Face one; frames as a recipe's defaults, or `data.key=value`, say."""
    from cluenet.evaluate.zero_shot import zero_shot_folder
    from cluenet.recipe import overridden

    backbone = {"name": "hf_vlm", "path": str(base.absolute())}
    recipe = overridden({"name": "zero-shot", "model": {"backbone": backbone}}, overrides, file="the command line")
    return zero_shot_folder(recipe, base, folder_beside(recipe, base) / "model")
