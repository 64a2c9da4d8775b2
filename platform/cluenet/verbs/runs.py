"""Verbs of runs and trained models: report, compare, ask, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluenet.verbs.shared import Json, quiet_libraries, run_folder, say, show, wrote


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or the recipe that made it.")],
    baseline: Annotated[Path | None, typer.Option(help="Run to show beside it: folder or recipe.")] = None,
    look: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="Ask the model again about the shown examples; auto: large ones on an accelerator only."),
    ] = "auto",
) -> None:
    """Write a run's report again, as one HTML file."""
    from cluenet.report.build import build_report

    quiet_libraries()
    wrote([build_report(run_folder(run), baseline and run_folder(baseline), look=look)])


def compare(
    base: Annotated[
        str,
        typer.Argument(
            metavar="A", help="The base: run folder, or the recipe that made it; several seeds joined by commas."
        ),
    ],
    others: Annotated[list[str], typer.Argument(metavar="B...", help="What is to be better, likewise.")],
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as one HTML file, too.")] = None,
) -> None:
    """Runs against a base on the same questions: accuracies, differences with intervals, tests, by type."""
    from cluenet.evaluate import compare as comparison
    from cluenet.report.comparison import build_comparison

    arms = [_arm(text) for text in (base, *others)]
    result = comparison.compare(*arms)
    pages = [] if html is None else [build_comparison(result.to_dict(), html)]
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    show(comparison.table(result))
    left = [path for arm in arms for run in arm for path in (run / "report.html", run / "model") if path.exists()]
    wrote([*pages, *left])


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

    quiet_libraries()
    result = ask_model(model, video, question, option or [], start_seconds=start, end_seconds=end, fps=fps)
    if as_json:
        print(result.to_json())
    else:
        show(render(result))


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
    quiet_libraries()
    write = exporting.export_merged if merge else exporting.export_adapter
    say(write(run_folder(model), out))
    wrote([out])


def _arm(text: str) -> list[Path]:
    """Runs joined by commas; the name of something that is there may have commas itself."""
    parts = [text] if Path(text).exists() else [part.strip() for part in text.split(",")]
    if not all(parts):
        raise typer.BadParameter(f"{text!r} has no run beside a comma", param_hint="A, B...")
    return [run_folder(Path(part)) for part in parts]
