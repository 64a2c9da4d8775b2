"""One self-contained page about a run, `<run>/report.html`: opens without a network, in light and dark, on paper, on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluenet.folders import atomic_write_text
from cluenet.metrics import biases, filtering
from cluenet.metrics.faithfulness import headlines
from cluenet.report import diagnosed, faithful, training
from cluenet.report.accuracy import ROW_WORDS, test_set
from cluenet.report.balance import balances
from cluenet.report.charts import Chart
from cluenet.report.examples import choose
from cluenet.report.facts import changes, facts, policy, speed, steps
from cluenet.report.looking import Looking
from cluenet.report.page import render
from cluenet.report.sources import Evaluation, RunData, accounts, read_run
from cluenet.report.views import views

TEMPLATE = "report.html.j2"


def build_report(run: Path, baseline: Path | None = None, *, look: Looking = "auto") -> Path:
    """Write `<run>/report.html` and return it.

    baseline: another run, shown beside it with paired differences. look: whether the run's model is asked again about the
    shown examples, for its attention and for what each clue does to the options; `auto` leaves large models without an
    accelerator alone. Raises DataError when there is nothing to report, StorageError when it cannot be written.
    """
    data = read_run(run)
    other = None if baseline is None else read_run(baseline)
    return atomic_write_text(data.folder / "report.html", render(TEMPLATE, context(data, other, look)))


def context(run: RunData, baseline: RunData | None, look: Looking) -> dict[str, Any]:
    """What the template gets."""
    known = accounts(run)
    return {
        "run": run, "baseline": baseline, "changes": changes(run, baseline) if baseline else [], "facts": facts(run),
        "sets": [test_set(evaluation, baseline) for evaluation in run.evaluations], "row_words": ROW_WORDS,
        "stages": training.stages(run.log), "steps": steps(run), "accounts": known, "policy": policy(run),
        "examples": views(run, choose(run.evaluations), look), "diagnosed": diagnosed.read_diagnosed(run),
        "balances": balances(run.evaluations, known),
        "headlines": headlines, "bias_lines": biases.headlines, "filter_lines": filtering.headlines, **_by_set(run),
    }  # fmt: skip


def _by_set(run: RunData) -> dict[str, Any]:
    """Charts and tables of every test set."""
    every = run.evaluations
    return {
        "removals": {one.name: faithful.removal(one) for one in every},
        "steerings": {one.name: faithful.steering(one) for one in every},
        "filters": {one.name: _filter(one) for one in every},
        "lenses": {one.name: _lens(one) for one in every},
        "tokens": [chart for one in every if (chart := faithful.accuracy_by_tokens(one))],
        "speeds": [speed(one) for one in every],
    }


def _filter(evaluation: Evaluation) -> list[Chart]:
    kept = faithful.kept_by_type(evaluation)
    return [] if kept is None else [kept, *faithful.gate_charts(evaluation)]


def _lens(evaluation: Evaluation) -> list[Chart]:
    return diagnosed.lens_charts((evaluation.results.get("biases") or {}).get("cognition") or ())
