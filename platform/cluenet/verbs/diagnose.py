"""The verb that looks into a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluenet.verbs.shared import quiet_libraries, run_folder, say, show, wrote


def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Evaluated run folder, or the recipe that made it.")],
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="One of its test sets; else the first.")
    ] = None,
    questions: Annotated[int, typer.Option(help="How many questions at most are looked at.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Which clips, which examples, and where t-SNE starts.")] = 0,
) -> None:
    """Figures of where a model looks, what its layers say, and where clues lie between question and answer."""
    from cluenet.diagnose.build import diagnose as look_into
    from cluenet.diagnose.findings import tables

    quiet_libraries()
    folder, data = look_into(run_folder(run), name=set_name, questions=questions, seed=seed)
    show(tables(data))
    for part, why in data["notes"].items():
        say(f"left out: {part}: {why}")
    wrote([*(folder / name for name in data["files"]), folder / "diagnostics.json"])
