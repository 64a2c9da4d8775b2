"""What verbs have in common: arguments, recipes and runs from them, and what they print.

Results go to standard output, progress and messages to standard error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cluenet.recipe import Recipe
    from cluenet.run import Run

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings that replace the recipe's.")
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster, HOST:PORT of its head; else RAY_ADDRESS, else Ray is started here.")
]
RECIPE_SUFFIXES = (".yaml", ".yml")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_recipe(recipe: Path, overrides: Sequence[str] | None) -> Recipe:
    from cluenet.recipe import load

    return load(recipe, overrides or ())


def run_recipe(
    ctx: typer.Context, recipe: Path, overrides: list[str] | None, address: str | None, *, until: str = "report"
) -> Run:
    return run_of(ctx, load_recipe(recipe, overrides), address, until=until)


def run_of(
    ctx: typer.Context, recipe: Recipe, address: str | None, *, until: str = "report", plugins: Sequence[str] = ()
) -> Run:
    """until: the step that the verb leads to. With --verbose plain lines between those of Ray, else one table.
    plugins: of other recipes on the same Ray."""
    from cluenet.jobs.storage import note_inside_a_job
    from cluenet.pipeline_table import PipelineTable
    from cluenet.progress import Progress
    from cluenet.run import Run
    from cluenet.run_account import STEPS

    if note := note_inside_a_job(recipe):
        say(note)
    if ctx.obj:
        plain = partial(Progress, live=False)
        return Run(recipe, address=address, verbose=True, progress=plain, say=say, plugins=plugins)
    quiet_libraries()
    table = PipelineTable(_steps(recipe, until), order=STEPS)
    return Run(recipe, address=address, say=say, table=table, plugins=plugins)


def _steps(recipe: Recipe, until: str) -> list[str]:
    """Those that the table starts with. `utilities` comes when it begins, and to score a trained model takes no training."""
    from cluenet.run_account import STEPS

    if until == "evaluate":
        return ["prepare", until]
    wanted = {
        "features": bool(recipe.data.features), "utilities": False, "evaluate": bool(recipe.data.test),
        **{stage: getattr(recipe.train, stage).steps > 0 for stage in ("stage1", "stage2")},
    }  # fmt: skip
    return [step for step in STEPS[: STEPS.index(until) + 1] if wanted.get(step, True)]


def run_folder(run_or_recipe: Path) -> Path:
    """Recipes stand for the run folder they lead to."""
    if run_or_recipe.suffix not in RECIPE_SUFFIXES:
        return run_or_recipe
    from cluenet.planning import Plan

    return Plan(load_recipe(run_or_recipe, None)).run


def quiet_libraries() -> None:
    """Loading bars of single milliseconds, and DeepSpeed's remark that there is no GPU, are not ours to show."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def wrote(paths: Iterable[Path]) -> None:
    print("Files:")
    for path in paths:
        print(f"  {path}")


def folder_beside(recipe: Recipe, model: Path) -> Path:
    """Where results of a model from elsewhere go: another folder for another model."""
    from cluenet.records import content_hash

    return (
        Path(recipe.runs).expanduser()
        / f"{recipe.name}-{model.absolute().name}-{content_hash(str(model.absolute()))[:10]}"
    )
