"""What `cluenet run` and `cluenet evaluate` print at their end: scores, seconds, and a question to try."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from cluenet.metrics import biases, faithfulness, filtering
from cluenet.prepared import PreparedSet
from cluenet.progress import duration

if TYPE_CHECKING:
    from cluenet.run import Run


NOTHING = {"n": 0, "value": None, "low": None, "high": None}
"""A measure without a unit."""


def scores_and_times(run: Run) -> Group:
    """Accuracies of every test set, and what each step took over all attempts."""
    steps = [f"{name} {duration(step['seconds'])}" for name, step in run.account.steps().items() if step["attempts"]]
    return Group(score_tables(run.results), f"Took: {', '.join(steps)}")


def score_tables(results: dict[str, dict[str, Any]]) -> Group:
    """Everything of results.json (by test set) that is for people, as far as it was measured."""
    return Group(
        accuracy_table(results), *(table for name, one in results.items() for table in _more_tables(name, one))
    )


def _more_tables(name: str, result: dict[str, Any]) -> Iterator[Table]:
    if result["benchmark"]:
        yield benchmark_table(name, result)
    if result.get("faithfulness"):
        found = [(*line, None) for line in faithfulness.headlines(result["faithfulness"])]
        yield findings_table(f"Do answers rest on the clues? {name}", found)
    if result.get("biases"):
        yield findings_table(
            f"Where does it go wrong between seeing and answering? {name}", biases.headlines(result["biases"])
        )
    if result.get("filter"):
        yield findings_table(f"What is the clue filter worth? {name}", filtering.headlines(result["filter"]))


def accuracy_table(results: dict[str, dict[str, Any]]) -> Table:
    """results: results.json by test set (see `cluenet.evaluate.results`)."""
    several = any("shuffles" in result for result in results.values())
    title = "Accuracy of the model's own answers"
    table = _table(
        "test set", "type", "n", "accuracy %", "95 % interval", *(["over orders"] if several else []), title=title
    )
    for name, result in results.items():
        for kind, score, spread in _accuracies(result):
            table.add_row(name, kind, *_estimate(score), *([_spread(spread)] if several else []))
        table.add_row(name, "(guessing)", "", _percent(result["chance"]), end_section=True)
    return table


def _accuracies(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """(question type, estimate, its spread over orders of the options)."""
    accuracy, orders = result["accuracy"], result.get("shuffles", {"accuracy": None, "all": None, "by_type": {}})
    yield "all types", accuracy["overall"], orders["accuracy"]
    if accuracy["all"]["n"] != accuracy["overall"]["n"]:
        yield "all types, what could not be asked is wrong", accuracy["all"], orders["all"]
    for kind, score in accuracy["by_type"].items():
        yield kind, score, orders["by_type"].get(kind)


def benchmark_table(name: str, result: dict[str, Any]) -> Table:
    """The dataset's own measures (see `cluenet.evaluate.benchmark`): of all rows, and of the answered ones where they differ."""
    found, answered, orders = result["benchmark"]["all"], result["benchmark"]["answered"], result.get("shuffles")
    differ = found != answered
    columns = [
        "measure",
        "n",
        "%",
        "95 % interval",
        *(["n answered", "%"] if differ else []),
        *(["over orders"] if orders else []),
    ]
    title = f"The benchmark's own measures: {name}" + (", what got no answer being wrong" if differ else "")
    table = _table(*columns, title=title, words=1)
    for measure, score in found.items():
        beside = _estimate(answered.get(measure, NOTHING))[:2] if differ else ()
        table.add_row(
            measure, *_estimate(score), *beside, *([_spread(orders["benchmark"]["all"][measure])] if orders else [])
        )
    return table


def findings_table(title: str, lines: Iterable[tuple[str, str, dict[str, Any], float | None]]) -> Table:
    """lines: (what it says, unit, estimate, what chance would give or was promised)."""
    rows = list(lines)
    beside = any(line[3] is not None for line in rows)
    table = _table(
        "what happens", "n", "%", "95 % interval", *(["chance or promise"] if beside else []), title=title, words=1
    )
    table.add_column("of")
    for words, unit, found, likely in rows:
        table.add_row(
            words, *_estimate(found), *([_percent(likely) if likely is not None else ""] if beside else []), unit
        )
    return table


def _table(*columns: str, title: str, words: int = 2) -> Table:
    """The first `words` columns hold words, the others numbers."""
    table = Table(*columns, title=title)
    for column in table.columns[words:]:
        column.justify = "right"
    return table


def _estimate(score: dict[str, Any]) -> tuple[str, str, str]:
    return str(score["n"]), _percent(score["value"]), f"{_percent(score['low'])} .. {_percent(score['high'])}"


def _spread(found: dict[str, Any] | None) -> str:
    """Mean and sample standard deviation."""
    return "" if found is None else f"{_percent(found['mean'])} ± {_percent(found['std'])}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def example_question(run: Run) -> str:
    """A `cluenet ask` command to copy, with a question of the test set, or of the training set where there is no test."""
    prepared = PreparedSet((run.prepared["test"] or run.prepared["train"])[0])
    example = prepared.examples_of(prepared.clip_keys[0])[0]
    options = [word for option in example.options for word in ("--option", option)]
    return shlex.join(["cluenet", "ask", str(run.model), example.video.path, example.question, *options])
