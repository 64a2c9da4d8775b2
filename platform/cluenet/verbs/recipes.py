"""Verbs of a recipe: run, prepare, train, evaluate, plan, validate."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluenet.errors import CluenetError
from cluenet.verbs.shared import (
    RECIPE_SUFFIXES,
    Address,
    Json,
    Overrides,
    RecipeFile,
    folder_beside,
    load_recipe,
    run_folder,
    run_of,
    run_recipe,
    show,
    wrote,
)

if TYPE_CHECKING:
    from cluenet.run import Run


def run(
    ctx: typer.Context,
    recipe: RecipeFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE]... [KEY.PATH=VALUE]...",
            help="Further recipes, which are run after it on the same Ray; settings that replace those of every recipe.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Run to show beside the others in their reports: folder or recipe.")
    ] = None,
    address: Address = None,
) -> None:
    """Do every step of a recipe, or of several; finished ones are found again, interrupted ones resume."""
    more = [word for word in overrides or () if "=" not in word and Path(word).suffix in RECIPE_SUFFIXES]
    settings = [word for word in overrides or () if word not in more]
    recipes = {file: load_recipe(file, settings) for file in (recipe, *map(Path, more))}  # all mistakes first
    plugins = [name for loaded in recipes.values() for name in loaded.plugins]
    folders: dict[Path, Path] = {}
    with ExitStack() as shared:  # the first one that needs Ray starts it, and it is left when all are done
        for file, loaded in recipes.items():
            pipeline = shared.enter_context(run_of(ctx, loaded, address, plugins=plugins))
            folders[file] = pipeline.folder
            beside = baseline and (folders.get(baseline) or run_folder(baseline))
            _run(pipeline, None if beside == pipeline.folder else beside)


def _run(pipeline: Run, baseline: Path | None) -> None:
    from cluenet import summary

    report = pipeline.report(baseline)
    if pipeline.recipe.data.test:
        show(summary.scores_and_times(pipeline))
    wrote([report, pipeline.model, pipeline.folder / "manifest.json"])
    print(f"Ask it:\n  {summary.example_question(pipeline)}")


def prepare(ctx: typer.Context, recipe: RecipeFile, overrides: Overrides = None, address: Address = None) -> None:
    """Decode the videos of a recipe's datasets, once for all recipes that share them."""
    with run_recipe(ctx, recipe, overrides, address, until="prepare") as pipeline:
        wrote(dict.fromkeys(folder for folders in pipeline.prepared.values() for folder in folders))


def train(ctx: typer.Context, recipe: RecipeFile, overrides: Overrides = None, address: Address = None) -> None:
    """Prepare, train both stages and write the model folder."""
    with run_recipe(ctx, recipe, overrides, address, until="model") as pipeline:
        wrote([pipeline.model, pipeline.folder / "logging.jsonl"])


def evaluate(
    ctx: typer.Context,
    recipe: RecipeFile,
    overrides: Overrides = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A model folder, or a Hugging Face folder (zero-shot); else the recipe's own run."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --model: where results go.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions of each test set.", min=1)] = None,
    split: Annotated[str | None, typer.Option(help="This split of every test set instead of the recipe's.")] = None,
    shuffles: Annotated[int | None, typer.Option(help="Orders of the options: evaluate.shuffles.", min=0)] = None,
    address: Address = None,
) -> None:
    """Score the recipe's trained model, or any other one, on the recipe's test sets."""
    from cluenet import summary
    from cluenet.evaluate.narrow import evaluation_folder, narrowed

    if out is not None and model is None:
        raise typer.BadParameter("only with --model; a recipe's own results go to its run folder", param_hint="--out")
    asked = narrowed(recipe, overrides or (), limit=limit, split=split, shuffles=shuffles)
    name = evaluation_folder(limit, split)
    with run_of(ctx, asked, address, until="evaluate") as pipeline:
        if model is None:
            results, folder = pipeline.results_of_trained(name), pipeline.folder
        else:
            folder = (out or folder_beside(pipeline.recipe, model)).absolute()
            results = pipeline.results_of(model, folder, name)
        show(summary.score_tables(results))
        wrote([folder / name / test / "results.json" for test in results])


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    accelerator: Annotated[str, typer.Option(help="What training is planned for: h100, a100-80gb, l4, ...")] = "h100",
    mfu: Annotated[
        float, typer.Option(help="Share of its published speed that training reaches.", min=0.01, max=1)
    ] = 0.35,
    clips: Annotated[
        int | None, typer.Option(help="Training clips, where the data is not on this machine.", min=1)
    ] = None,
    questions: Annotated[int | None, typer.Option(help="Their questions, likewise.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Dry run: every step and its state, and what the run will cost in memory, hours and disk. Starts and downloads nothing."""
    from cluenet.estimate import verb

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's library is imported
    planned = verb.plan(load_recipe(recipe, overrides), accelerator, mfu=mfu, clips=clips, questions=questions)
    if as_json:
        print(json.dumps(planned.to_dict(), indent=2))
    else:
        show(planned.tables())


def validate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE... [KEY.PATH=VALUE]...", help="YAML files, and overrides of recipes.")
    ],
) -> None:
    """Check recipes, grids, Ray Serve configs, files of Ray's cluster launcher and of KubeRay: every problem of every file."""
    paths = [Path(file) for file in files if "=" not in file or Path(file).exists()]
    overrides = [file for file in files if "=" in file and not Path(file).exists()]
    if not paths:
        raise typer.BadParameter("no file to check", param_hint="FILE")
    messages = [message for path in paths if (message := _problems(path, overrides))]
    if messages:
        raise CluenetError("\n".join(messages))


def _problems(path: Path, overrides: list[str]) -> str | None:
    from cluenet import validation

    try:
        validation.check(path, overrides)
    except CluenetError as error:
        return str(error)
    print(f"{path}: ok")
    return None
