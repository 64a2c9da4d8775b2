"""Verbs of the software and of datasets on disk: components, inspect, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cluenet.errors import DataError
from cluenet.verbs.shared import Json, show, wrote


def components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as sampler.")] = None, as_json: Json = False
) -> None:
    """What can be named in a recipe, with every setting, its default and what it allows."""
    from cluenet import listing

    rows = listing.components(kind)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        show(listing.table(rows))


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
        show(tables.tables(found))
    if problems := found["problems"]:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError("\n  ".join([f"{name}: {count}", *problems]))


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
        wrote([atomic_write_text(output, text)])
