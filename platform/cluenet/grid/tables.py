"""A grid in the terminal: what would run, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from cluenet.grid.bounds import Bounds
from cluenet.grid.brackets import Brackets
from cluenet.grid.cells import Grid
from cluenet.grid.cost import StepCost
from cluenet.grid.graph import Graph, Key
from cluenet.progress import duration
from cluenet.report.page import p_value, share, signed


def plan_tables(grid: Grid, brackets: Brackets, costs: Sequence[StepCost], bounds: Bounds | None) -> Group:
    """For `--dry-run`. bounds: with `asha` in the grid."""
    early = () if bounds is None else (_plan_of_rungs(bounds), _early(bounds))
    return Group(_plan_of_cells(grid, brackets), _plan_of_steps(costs), *early, _total(costs))


def plan_dict(grid: Grid, brackets: Brackets, costs: Sequence[StepCost], bounds: Bounds | None) -> dict[str, Any]:
    """The same as JSON."""
    graph = brackets.graph
    runs = [
        {
            "cell": cell, "seed": seed, "run": graph.plans[cell, seed].run.name, "left": _left(graph, keys),
            "stopped": brackets.stopped((cell, seed)),
        }
        for (cell, seed), keys in graph.runs.items()
    ]  # fmt: skip
    asha = None if bounds is None else bounds.to_dict()
    return {"grid": grid.spec.name, "runs": runs, "steps": [one.to_dict() for one in costs], "asha": asha}


def _left(graph: Graph, keys: Sequence[Key]) -> list[str]:
    return [key[0] for key in keys if not graph.nodes[key].finished]


def _plan_of_cells(grid: Grid, brackets: Brackets) -> Table:
    graph = brackets.graph
    table = Table("cell", "seed", "run", "left", title=f"{grid.spec.name}: {len(graph.runs)} runs")
    for place, keys in graph.runs.items():
        left = ", ".join(_left(graph, keys)) or "nothing"
        why = brackets.stopped(place)
        table.add_row(place[0], str(place[1]), graph.plans[place].run.name, f"stopped by {why}" if why else left)
    return table


def _plan_of_rungs(bounds: Bounds) -> Table:
    table = Table("steps of a run", "different trainings", "go on, at least", "at most", title="Rungs, of each seed")
    for column in table.columns:
        column.justify = "right"
    for one in bounds.rungs:
        table.add_row(*map(str, (one.steps, one.trainings, one.least, one.most)))
    return table


def _early(bounds: Bounds) -> str:
    return (
        f"asha: of {bounds.without} different optimiser steps, at least {bounds.least} and at most {bounds.most} are trained. The table of "
        "steps counts all of them."
    )


def _plan_of_steps(costs: Sequence[StepCost]) -> Table:
    table = Table("step", "asked for", "different", "finished", "left", "seconds left", "TFLOP left", title="Steps")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in costs:
        seconds, work = ("-" if value is None else f"{value:,.4g}" for value in (one.seconds, one.teraflop))
        table.add_row(one.step, *map(str, (one.asked, one.unique, one.finished, one.left)), seconds, work)
    return table


def _total(costs: Sequence[StepCost]) -> str:
    known = [one for one in costs if one.seconds]
    parts = [f"{duration(sum(one.seconds or 0.0 for one in known))} one step after the other"] if known else []
    if unknown := [one.step for one in costs if one.seconds is None]:
        parts.append(f"{', '.join(unknown)}, which this grid has not timed yet")
    shared = sum(one.asked - one.unique for one in costs)
    return f"Left: {' and '.join(parts) or 'nothing'}. {shared} steps that several runs need are done once."


# --------------------------------------------------------------------------------------------------------- results


def result_tables(content: Mapping[str, Any]) -> Group:
    """content: of grid.json."""
    parts: list[Table | str] = [_results(content, name) for name in content["test_sets"]]
    parts += [_effects(content)] if content["effects"] else []
    parts += [selection(content["asha"])] if content["asha"] else []
    return Group(*parts, *notes(content))


def _results(content: Mapping[str, Any], name: str) -> Table:
    reference = content["cells"][0]["name"]
    columns = (
        "cell",
        "seeds",
        "% right",
        "95 % interval",
        "difference",
        "95 % interval",
        "p",
        "Holm",
        "tokens",
        "ms",
        "best",
    )
    caption = f"Difference to {reference}, as `cluenet compare` has it. Holm: p corrected for all cells and test sets. Tokens, ms: per question. Best: no other cell is as good in all three."  # fmt: skip
    table = Table(*columns, title=f"{content['grid']}: {name}", caption=caption)
    for column in table.columns[1:]:
        column.justify = "right"
    for cell in content["cells"]:
        table.add_row(*_result(cell, cell["sets"].get(name)))
    return table


def _result(cell: Mapping[str, Any], found: Mapping[str, Any] | None) -> tuple[str, ...]:
    done = sum(run["state"] == "finished" for run in cell["runs"])
    seeds = f"{done}/{len(cell['runs'])}"
    if found is None:
        return cell["name"], seeds, cell["state"]
    accuracy = found["accuracy"]
    costs = (f"{found['tokens']:.1f}", f"{1000 * found['seconds_per_question']:.1f}", "yes" if found["pareto"] else "")
    return cell["name"], seeds, share(accuracy["value"]), _ends(accuracy, share), *_difference(found), *costs


def _difference(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    row = found["difference"]
    if row is None:
        return ("refused" if found["refused"] else "", "", "", "")
    difference = row["result"]["difference"]
    return (
        signed(difference["value"]), _ends(difference, signed), p_value(row["result"]["p_value"]), p_value(row["p_holm"]),
    )  # fmt: skip


def _ends(estimate: Mapping[str, Any], show: Any) -> str:
    return "-" if estimate["low"] is None else f"{show(estimate['low'])} .. {show(estimate['high'])}"


def _effects(content: Mapping[str, Any]) -> Table:
    table = Table(
        "axis", "value", "test set", "cells", "effect", "95 % interval", "p", "Holm", title="Main effects, points"
    )
    for one in content["effects"]:
        table.add_row(
            one["axis"], one["value"], one["test_set"], str(one["cells"]), signed(one["difference"]["value"]),
            _ends(one["difference"], signed), p_value(one["p_value"]), p_value(one["p_holm"]),
        )  # fmt: skip
    return table


def _why(run: Mapping[str, Any]) -> str:
    """Reasons of asha name the seed themselves."""
    return f": stopped by {run['why']}" if run["state"] == "stopped" else f", seed {run['seed']}: {run['why']}"


def selection(asha: Mapping[str, Any]) -> str:
    """What cells that were stopped, and those that were not, can be compared with."""
    steps = ", ".join(map(str, dict.fromkeys(rung["steps"] for rung in asha["rungs"])))
    return (
        f"asha: of cells that came to {steps} steps, the best 1/{asha['eta']} in validation went on, seed by seed, and the reference "
        "always. A cell that was stopped has no result and is not comparable. Those that went on were selected by accuracy on "
        "validation questions, not on the test sets; a mean over seeds is of the seeds that went on."
    )


def notes(content: Mapping[str, Any]) -> Iterator[str]:
    """Why cells have no number or no difference."""
    for cell in content["cells"]:
        yield from (f"{cell['name']}{_why(run)}" for run in cell["runs"] if run["why"])
        if left := [str(run["seed"]) for run in cell["runs"] if run["state"] == "not run"]:
            yield f"{cell['name']}: not run yet with seed {', '.join(left)}"
        yield from dict.fromkeys(f"{cell['name']}: {one['refused']}" for one in cell["sets"].values() if one["refused"])
