"""From a grid to its files: what is left of its steps on Ray, then grid.json, grid.csv and grid.html from the folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluenet.errors import GridError
from cluenet.grid import page, results
from cluenet.grid.account import Account
from cluenet.grid.bounds import require_places
from cluenet.grid.brackets import Brackets
from cluenet.grid.cells import Cell, Grid
from cluenet.grid.execute import Execution
from cluenet.grid.graph import Graph, graph_of
from cluenet.grid.halving import Halving
from cluenet.run import Say


def run(grid: Grid, cells: Sequence[Cell], *, address: str | None, verbose: bool, say: Say) -> None:
    """Do what is left of these cells. Finished steps are found again, interrupted ones resume.

    Raises RecipeError where none of the cells would be trained to its end, ClusterError for what could never run on this
    cluster, GridError with what failed when all else is done.
    """
    require_places(grid)
    graph, account = graph_of(grid, cells), Account(grid.folder)
    halving = Halving(Brackets(graph, grid.spec.asha, grid.folder))
    if not halving.has_work():
        return
    from cluenet import cluster
    from cluenet.grid.demand import require_all, whole_of
    from cluenet.grid.workers import RayPool
    from cluenet.ray_data import capacity

    with cluster.connected(address, verbose=verbose, plugins=grid.plugins) as resources:
        say(f"Ray: {cluster.summary(resources)}")
        whole = whole_of(capacity())
        require_all((cell.recipe for cell in cells), whole)
        execution = Execution(graph, RayPool(whole), account, retries=grid.spec.retries, halving=halving)
        execution.run(f"Grid {grid.spec.name}")
    if execution.failed:
        bug = any(outcome.exit_code == 1 for outcome in execution.failed.values())
        raise GridError(_failures(graph, execution), 1 if bug else 2)


def _failures(graph: Graph, execution: Execution) -> str:
    stopped = [place for place, keys in graph.runs.items() if set(keys) & set(execution.failed)]
    names = ", ".join(f"{cell} (seed {seed})" for cell, seed in stopped)
    lines = [f"  {key[0]} {key[1][:10]}: {outcome.error}" for key, outcome in execution.failed.items()]
    return (
        f"{len(stopped)} of {len(graph.runs)} runs have no result: {names}. These steps failed:\n"
        + "\n".join(lines)
        + "\nThe same command tries them again."
    )


def write(grid: Grid) -> tuple[dict[str, Any], list[Path]]:
    """The content of grid.json, and the files, from the folders of the grid's runs as they are now."""
    content = results.collect(grid, graph_of(grid), Account(grid.folder))
    return content, page.write(grid.folder, content)


def check_compared(content: Mapping[str, Any]) -> None:
    """Raises GridError that names every cell with results that could not be compared with the reference."""
    refused = {
        cell["name"]: one["refused"] for cell in content["cells"] for one in cell["sets"].values() if one["refused"]
    }
    if refused:
        lines = "\n".join(f"  {name}: {why}" for name, why in refused.items())
        raise GridError(f"not compared with {content['cells'][0]['name']!r}, see the reasons:\n{lines}")
