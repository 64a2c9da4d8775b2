"""The verb of grids."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluenet.errors import GridError
from cluenet.verbs.shared import Address, Json, Overrides, quiet_libraries, say, show, wrote

if TYPE_CHECKING:
    from cluenet.grid.cells import Cell, Grid


def grid(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file of a grid (docs/ablations.md).")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which cells there are, what they share, and what is left to do.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Only write the results again from the runs' folders.")
    ] = False,
    max_cells: Annotated[
        int | None, typer.Option(help="Only the first so many cells; the others stay as they are.", min=1)
    ] = None,
    as_json: Json = False,
    address: Address = None,
) -> None:
    """Many recipes that differ in a few settings: every shared step once, then one table of them all."""
    from cluenet.grid import cells, running, tables

    if dry_run and table:
        raise typer.BadParameter("give one of the two", param_hint="--dry-run, --table")
    if not ctx.obj:
        quiet_libraries()
    made = cells.load(file, overrides or ())
    chosen = made.cells[:max_cells]
    if dry_run:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's library is imported
        _say_plan(made, chosen, as_json)
        return
    failure = None if table else _run(ctx, made, chosen, address)
    content, files = running.write(made)
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        show(tables.result_tables(content))
        wrote(files)
    if failure is not None:
        raise failure
    running.check_compared(content)


def _run(ctx: typer.Context, made: Grid, chosen: Sequence[Cell], address: str | None) -> GridError | None:
    """What failed, for after the table of the rest."""
    from cluenet.grid import running

    try:
        running.run(made, chosen, address=address, verbose=bool(ctx.obj), say=say)
    except GridError as error:
        return error
    return None


def _say_plan(made: Grid, chosen: Sequence[Cell], as_json: bool) -> None:
    from cluenet.grid import bounds, brackets, cost, graph, tables
    from cluenet.grid.account import Account

    bounds.require_places(made)
    asha, found = made.spec.asha, graph.graph_of(made, chosen)
    known = brackets.Brackets(found, asha, made.folder)
    parts = (made, known, cost.costs(found, Account(made.folder)), asha and bounds.bounds_of(asha, found))
    if as_json:
        print(json.dumps(tables.plan_dict(*parts), indent=2))
    else:
        show(tables.plan_tables(*parts))
