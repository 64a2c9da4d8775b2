"""The verb that runs a recipe or a grid as a job of a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluenet.verbs.shared import Overrides, say


def submit(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE_OR_GRID", help="YAML file inside the working directory.")],
    overrides: Overrides = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="URL of the cluster's dashboard, or HOST:PORT of its head; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or this machine."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the job's log, and end with its exit code.")
    ] = True,
    working_dir: Annotated[Path, typer.Option(help="Folder that is shipped, and that the job runs in.")] = Path("."),
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="Variable of the job and its workers; without a value, the one here. Repeat it.",
        ),
    ] = None,
) -> None:
    """Run a recipe or a grid as a job of a Ray cluster, with the code of the working directory. Again: follow or resume it."""
    from cluenet.jobs import server
    from cluenet.jobs.following import follow as follow_job
    from cluenet.jobs.job import job_of

    job = job_of(recipe, overrides or (), working_dir, env or ())
    for note in job.notes:
        say(note)
    client = server.connect(address)
    name = server.submit(client, job, say)
    print(f"job {name} at {client.get_address()}", flush=True)
    if not follow:
        say(server.how_to_go_on(client.get_address(), name))
        return
    try:
        code = follow_job(client, name, _write, say)
    except KeyboardInterrupt:
        say(server.how_to_go_on(client.get_address(), name))
        code = 130
    raise typer.Exit(code)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
