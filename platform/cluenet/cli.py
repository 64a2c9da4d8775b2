"""`cluenet`: one verb per thing a person wants. Everything heavy is imported by the verb that needs it.

Exit codes: 0; 2 the input is wrong (`CluenetError`, or a command line that does not parse); 1 a bug of ours; 130 Ctrl-C.
Results go to standard output, progress and messages to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from cluenet import interrupts
from cluenet.errors import CluenetError, DataError, StorageError

if TYPE_CHECKING:
    from cluenet.recipe import Recipe
    from cluenet.run import Run

GLOBAL_FLAGS = ("--debug", "--verbose")


class _CtrlCError(Exception):
    """Ctrl-C, on its way past typer, which would answer it itself."""


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _CtrlCError from error


app = typer.Typer(
    cls=_Verbs, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Clue-aware video question answering on Ray: prepare, train, evaluate, ask. Recipes (YAML) say everything about a run.",
)  # fmt: skip

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings that replace the recipe's.")
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster, HOST:PORT of its head; else RAY_ADDRESS, else Ray is started here.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        import cluenet

        print(f"cluenet {cluenet.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of Ray and of its workers.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    ctx.obj = verbose
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)


# ------------------------------------------------------------------------------------------------- of a recipe


@app.command()
def run(
    ctx: typer.Context,
    recipe: RecipeFile,
    overrides: Overrides = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Run to show beside this one in the report: folder or recipe.")
    ] = None,
    address: Address = None,
) -> None:
    """Do every step of a recipe; finished ones are found again, interrupted ones resume."""
    from cluenet import summary

    with _run(ctx, recipe, overrides, address) as pipeline:
        report = pipeline.report(baseline and _run_folder(baseline))
        if pipeline.recipe.data.test:
            _print(summary.scores_and_times(pipeline))
        _wrote([report, pipeline.model, pipeline.folder / "manifest.json"])
        print(f"Ask it:\n  {summary.example_question(pipeline)}")


@app.command()
def prepare(ctx: typer.Context, recipe: RecipeFile, overrides: Overrides = None, address: Address = None) -> None:
    """Decode the videos of a recipe's datasets, once for all recipes that share them."""
    with _run(ctx, recipe, overrides, address) as pipeline:
        _wrote(dict.fromkeys(folder for folders in pipeline.prepared.values() for folder in folders))


@app.command()
def train(ctx: typer.Context, recipe: RecipeFile, overrides: Overrides = None, address: Address = None) -> None:
    """Prepare, train both stages and write the model folder."""
    with _run(ctx, recipe, overrides, address) as pipeline:
        _wrote([pipeline.model, pipeline.folder / "logging.jsonl"])


@app.command()
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
    with _run_of(ctx, asked, address) as pipeline:
        if model is None:
            results, folder = pipeline.results_of_trained(name), pipeline.folder
        else:
            folder = (out or _folder_beside(pipeline.recipe, model)).absolute()
            results = pipeline.results_of(model, folder, name)
        _print(summary.score_tables(results))
        _wrote([folder / name / test / "results.json" for test in results])


@app.command()
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
    planned = verb.plan(_load(recipe, overrides), accelerator, mfu=mfu, clips=clips, questions=questions)
    if as_json:
        print(json.dumps(planned.to_dict(), indent=2))
    else:
        _print(planned.tables())


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE... [KEY.PATH=VALUE]...", help="Recipes, and overrides.")],
) -> None:
    """Check recipes, and Ray Serve configs of `cluenet serve --export`: every problem of every file."""
    paths = [Path(file) for file in files if "=" not in file or Path(file).exists()]
    overrides = [file for file in files if "=" in file and not Path(file).exists()]
    if not paths:
        raise typer.BadParameter("no file to check", param_hint="FILE")
    messages = [message for path in paths if (message := _problems(path, overrides))]
    if messages:
        raise CluenetError("\n".join(messages))


def _problems(path: Path, overrides: list[str]) -> str | None:
    from cluenet.serve import export

    try:
        if export.is_config(path):
            export.check(path)
        else:
            _load(path, overrides)
    except CluenetError as error:
        return str(error)
    print(f"{path}: ok")
    return None


# ---------------------------------------------------------------------------------------------- of runs and models


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or the recipe that made it.")],
    baseline: Annotated[Path | None, typer.Option(help="Run to show beside it: folder or recipe.")] = None,
) -> None:
    """Write a run's report again, as one HTML file."""
    from cluenet.report.build import build_report

    _wrote([build_report(_run_folder(run), baseline and _run_folder(baseline))])


@app.command()
def compare(
    base: Annotated[
        str,
        typer.Argument(
            metavar="A", help="The base: run folder, or the recipe that made it; several seeds joined by commas."
        ),
    ],
    others: Annotated[list[str], typer.Argument(metavar="B...", help="What is to be better, likewise.")],
    as_json: Json = False,
) -> None:
    """Runs against a base on the same questions: accuracies, differences with intervals, tests, by type."""
    from cluenet.evaluate import compare as comparison

    arms = [_arm(text) for text in (base, *others)]
    result = comparison.compare(*arms)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    _print(comparison.table(result))
    _wrote(path for arm in arms for run in arm for path in (run / "report.html", run / "model") if path.exists())


@app.command()
def ask(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder.")],
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Video file, or a folder of numbered frames.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="An answer to choose from; repeat it.")
    ] = None,
    start: Annotated[float, typer.Option(help="Seconds: where the clip starts.", min=0)] = 0.0,
    end: Annotated[float | None, typer.Option(help="Seconds: where it ends; else with the file.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second, only for a folder of frames.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a trained model one question about one video."""
    from cluenet.ask import ask as ask_model
    from cluenet.ask import render

    _quiet_libraries()
    result = ask_model(model, video, question, option or [], start_seconds=start, end_seconds=end, fps=fps)
    if as_json:
        print(result.to_json())
    else:
        _print(render(result))


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_MODEL", help="Model folder, run folder, or the recipe that made it.")
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="A plain Hugging Face checkpoint, an adapter merged into it.")
    ] = False,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="The adapter alone, as peft reads it.")] = False,
) -> None:
    """Write the fine-tuned backbone for other programs."""
    from cluenet import exporting

    if merge == adapter_only:
        raise typer.BadParameter("give one of the two", param_hint="--merge, --adapter-only")
    _quiet_libraries()
    write = exporting.export_merged if merge else exporting.export_adapter
    _say(write(_run_folder(model), out))
    _wrote([out])


@app.command()
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

    _quiet_libraries()
    if (model / "config.json").is_file() and not (model / "model_config.json").is_file():
        model = _zero_shot(model, [one for one in overrides or () if not one.startswith("serve.")])
        overrides = [one for one in overrides or () if one.startswith("serve.")]
    folder = launch.model_folder(model)
    args = launch.arguments(folder, overrides or ())
    if export is not None:
        _wrote([exporting.write(export, args)])
        return
    launch.lower_overhead()
    with connected(address, verbose=bool(ctx.obj), plugins=read_plugins(folder)):
        launch.serve_until_stopped(args, _say)


# ------------------------------------------------------------------------------------------------- of the software


@app.command()
def components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as sampler.")] = None, as_json: Json = False
) -> None:
    """What can be named in a recipe, with every setting, its default and what it allows."""
    from cluenet import listing

    rows = listing.components(kind)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        _print(listing.table(rows))


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset that `cluenet components dataset` lists.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH] [KEY=VALUE]...", help="Where it lies, and further settings of the dataset."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME [PATH] [KEY=VALUE]...'", help="Another dataset to compare videos with, quoted; repeat it."
        ),
    ] = None,
    opened: Annotated[bool, typer.Option("--open", help="Open every video and decode a frame of every clip.")] = False,
    hashed: Annotated[bool, typer.Option("--hash", help="Compare videos by content too; reads every file.")] = False,
    as_json: Json = False,
) -> None:
    """Look at a dataset on disk: rows, answers, videos, and what it shares with others. Exit code 2 where something is wrong."""
    from cluenet.inspection import report, splits, tables

    source = splits.source_of(name, settings or ())
    others = [splits.source_of(*splits.words_of(text)) for text in against or ()]
    found = report.inspect(source, others, opened=opened, hashed=hashed)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(tables.tables(found))
    if problems := found["problems"]:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError("\n  ".join([f"{name}: {count}", *problems]))


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else it is printed.")] = None,
) -> None:
    """JSON schema of recipes, for editors; knows every installed component."""
    from cluenet.folders import atomic_write_text
    from cluenet.recipe import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        print(text, end="")
    else:
        _wrote([atomic_write_text(output, text)])


# --------------------------------------------------------------------------------------------------------- parts


def _load(recipe: Path, overrides: Sequence[str] | None) -> Recipe:
    from cluenet.recipe import load

    return load(recipe, overrides or ())


def _run(ctx: typer.Context, recipe: Path, overrides: list[str] | None, address: str | None) -> Run:
    return _run_of(ctx, _load(recipe, overrides), address)


def _run_of(ctx: typer.Context, recipe: Recipe, address: str | None) -> Run:
    from cluenet.run import Run

    if not ctx.obj:
        _quiet_libraries()
    return Run(recipe, address=address, verbose=bool(ctx.obj), say=_say)


def _run_folder(run_or_recipe: Path) -> Path:
    """Recipes stand for the run folder they lead to."""
    if run_or_recipe.suffix not in (".yaml", ".yml"):
        return run_or_recipe
    from cluenet.planning import Plan

    return Plan(_load(run_or_recipe, None)).run


def _arm(text: str) -> list[Path]:
    """Runs joined by commas; the name of something that is there may have commas itself."""
    parts = [text] if Path(text).exists() else [part.strip() for part in text.split(",")]
    if not all(parts):
        raise typer.BadParameter(f"{text!r} has no run beside a comma", param_hint="A, B...")
    return [_run_folder(Path(part)) for part in parts]


def _quiet_libraries() -> None:
    """Loading bars of single milliseconds, and DeepSpeed's remark that there is no GPU, are not ours to show."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _wrote(paths: Iterable[Path]) -> None:
    print("Files:")
    for path in paths:
        print(f"  {path}")


def _zero_shot(base: Path, overrides: list[str]) -> Path:
    """A model folder of a Hugging Face one; frames as a recipe's defaults, or `data.key=value`, say."""
    from cluenet.evaluate.zero_shot import zero_shot_folder
    from cluenet.recipe import overridden

    backbone = {"name": "hf_vlm", "path": str(base.absolute())}
    recipe = overridden({"name": "zero-shot", "model": {"backbone": backbone}}, overrides, file="the command line")
    return zero_shot_folder(recipe, base, _folder_beside(recipe, base) / "model")


def _folder_beside(recipe: Recipe, model: Path) -> Path:
    """Where results of a model from elsewhere go: another folder for another model."""
    from cluenet.records import content_hash

    return (
        Path(recipe.runs).expanduser()
        / f"{recipe.name}-{model.absolute().name}-{content_hash(str(model.absolute()))[:10]}"
    )


# --------------------------------------------------------------------------------------------------------- errors


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script, and the only place that ends the process."""
    sys.exit(call(list(sys.argv[1:] if arguments is None else arguments)))


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit code. --debug and --verbose may stand anywhere before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [flag for flag in GLOBAL_FLAGS if flag in arguments[:end]]
    rest = [word for word in arguments[:end] if word not in GLOBAL_FLAGS] + arguments[end:]
    try:
        with interrupts.remembered():
            app(args=[*flags, *rest], prog_name="cluenet")
    except SystemExit as stop:  # typer's: help, --version, a command line that does not parse
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except (KeyboardInterrupt, _CtrlCError):
        _say("interrupted; run the same command again to resume")
        return 130
    except BrokenPipeError:  # `cluenet components | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error, debug="--debug" in flags)
    return 0


def _explain(error: Exception, *, debug: bool) -> int:
    """Prints what went wrong and returns the exit code."""
    if debug:
        traceback.print_exception(error)
    cause = getattr(error, "cause", None)  # of an error that came back from a Ray task, inside Ray's own
    known = cause if isinstance(cause, CluenetError) else error
    if isinstance(known, CluenetError):
        _say(f"error: {known}")
        return known.exit_code
    if (full := _storage_error(error)) is not None:
        _say(f"error: {full}")
        return full.exit_code
    where = "" if debug else " Run it again with --debug to see the traceback."
    _say(
        f"internal error: {type(error).__name__}: {error}\nThis is a bug in cluenet or in a component of a plug-in.{where} "
        "Please report it to the maintainers, with the traceback, the command and the recipe."
    )
    return 1


def _storage_error(error: Exception) -> CluenetError | None:
    """A full disk met where nobody expected it."""
    from cluenet.folders import storage_errors

    path = getattr(error, "filename", None) or "."
    try:
        with storage_errors(path):
            raise error
    except StorageError as storage:
        return storage
    except Exception:
        return None
