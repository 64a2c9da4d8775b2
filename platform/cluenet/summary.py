"""What `cluenet run` and `cluenet evaluate` print at their end: scores, seconds, and a question to try."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from cluenet.metrics.faithfulness import headlines
from cluenet.prepared import PreparedSet
from cluenet.progress import duration

if TYPE_CHECKING:
    from cluenet.run import Run


def scores_and_times(run: Run) -> Group:
    """Accuracies of every test set, and what each step took over all attempts."""
    steps = [f"{name} {duration(step['seconds'])}" for name, step in run.steps().items() if step["attempts"]]
    return Group(score_tables(run.results), f"Took: {', '.join(steps)}")


def score_tables(results: dict[str, dict[str, Any]]) -> Group:
    """Accuracies, and faithfulness where it was measured; results: results.json by test set."""
    measured = {name: result["faithfulness"] for name, result in results.items() if result.get("faithfulness")}
    return Group(accuracy_table(results), *(faithfulness_table(name, block) for name, block in measured.items()))


def accuracy_table(results: dict[str, dict[str, Any]]) -> Table:
    """results: results.json by test set (see `cluenet.evaluate.results`)."""
    table = Table("test set", "type", "n", "accuracy %", "95 % interval", title="Accuracy of the model's own answers")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, result in results.items():
        for kind, score in {"all types": result["accuracy"]["overall"], **result["accuracy"]["by_type"]}.items():
            interval = f"{_percent(score['low'])} .. {_percent(score['high'])}"
            table.add_row(name, kind, str(score["n"]), _percent(score["value"]), interval)
        table.add_row(name, "(guessing)", "", _percent(result["chance"]), "", end_section=True)
    return table


def faithfulness_table(name: str, block: dict[str, Any]) -> Table:
    """`faithfulness` of results.json (see `cluenet.evaluate.faithfulness`)."""
    table = Table("what happens", "n", "%", "95 % interval", "of", title=f"Do answers rest on the clues? {name}")
    for column in table.columns[1:4]:
        column.justify = "right"
    for words, unit, found in headlines(block):
        interval = f"{_percent(found['low'])} .. {_percent(found['high'])}"
        table.add_row(words, str(found["n"]), _percent(found["value"]), interval, unit)
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def example_question(run: Run) -> str:
    """A `cluenet ask` command to copy, with a question of the test set, or of the training set where there is no test."""
    prepared = PreparedSet((run.prepared["test"] or run.prepared["train"])[0])
    example = prepared.examples_of(prepared.clip_keys[0])[0]
    options = [word for option in example.options for word in ("--option", option)]
    return shlex.join(["cluenet", "ask", str(run.model), example.video.path, example.question, *options])
