"""The table of a run: what is done, what goes on, what is to come; once at the end, nothing of it elsewhere."""

from __future__ import annotations

import io
import logging
import os
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from cluenet import cli, pipeline_table, progress
from cluenet.pipeline_table import PipelineTable
from cluenet.recipe import Recipe
from cluenet.run import Run
from cluenet.run_account import STEPS
from cluenet.verbs.shared import run_of
from helpers import terminal as window

ALL = ["prepare", "pretrain", "stage1", "stage2", "model", "evaluate", "report"]


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(pipeline_table, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    return Terminal()


def lines(table: PipelineTable) -> dict[str, list[str]]:
    """By first word, the cells of every row as they are displayed."""
    console = Console(record=True, width=150, file=io.StringIO())
    console.print(table.table())
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in console.export_text().splitlines()]
    return {row[0]: row[1:] for row in rows if row}


def plain(text: str) -> list[str]:
    """Lines as they are seen."""
    return Text.from_ansi(text.rstrip()).plain.splitlines()


def test_a_running_step_shows_state_rate_time_and_numbers(clock: Clock, terminal: Terminal):
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    with table.step("stage1"), table.progress("Training stage1", total=400, unit="steps") as work:
        work.update(20, loss=1.5)
        clock.now += 60
        work.update(140, loss=0.41234, accuracy=0.625)
        rows = lines(table)
    assert rows["step"] == ["state", "done", "rate", "took", "left", "loss", "accuracy"]
    assert rows["stage1"] == ["training stage1", "140/400 steps", "2/s", "1 min 0 s", "2 min 10 s", "0.4123", "62.5 %"]
    assert rows["prepare"] == rows["pretrain"] == ["found"]
    assert rows["evaluate"] == ["waiting"]


def test_what_a_step_did_stays_in_its_row(clock: Clock, terminal: Terminal):
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    for split, lost in (("train", 2), ("test", 1)):
        with table.step("prepare"):
            with table.progress(f"Reading {split}", unit="questions") as work:
                work.advance(9)
            with table.progress(f"Decoding {split}", total=1500, unit="videos") as work:
                clock.now += 30
                work.advance(1500, quarantined=lost)
    with table.step("pretrain"):
        rows = lines(table)
    assert rows["prepare"] == ["finished", "1,500/1,500 videos", "1 min 0 s", "3"], "seconds and lost videos add up"
    assert list(rows) == ["step", *ALL]


def test_a_step_that_nobody_announced_gets_its_place(terminal: Terminal):
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    with table.step("utilities"):
        assert list(lines(table)) == ["step", "prepare", "pretrain", "stage1", "utilities", "stage2", *ALL[4:]]


def test_the_table_stands_once_at_the_end(terminal: Terminal):
    table = PipelineTable(["evaluate", "report"], order=STEPS, stream=terminal)
    with table.step("evaluate"):
        pass
    with table.step("report"):
        pass
    shown = terminal.getvalue()
    assert [line.split()[:2] for line in plain(shown)[-2:]] == [["evaluate", "finished"], ["report", "finished"]]
    table.close()
    assert terminal.getvalue() == shown


def test_an_error_leaves_the_table_as_it_was(terminal: Terminal):
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    with pytest.raises(KeyboardInterrupt), table.step("stage1"), table.progress("Training stage1", 9, "steps") as work:
        work.advance(4)
        raise KeyboardInterrupt
    assert lines(table)["stage1"][:2] == ["stopped", "4/9 steps"]
    assert [line.split()[:2] for line in plain(terminal.getvalue())[-5:-3]] == [
        ["stage1", "stopped"],
        ["stage2", "waiting"],
    ]


def test_what_is_printed_meanwhile_stands_whole_above_it(monkeypatch: pytest.MonkeyPatch, terminal: Terminal):
    monkeypatch.setattr(sys, "stderr", terminal)
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    logger = logging.getLogger("cluenet.somewhere")
    handler = cli._Messages()
    logger.addHandler(handler)
    try:
        with table.step("stage1"):
            print("a line", file=sys.stderr)
            logger.warning("a warning")
    finally:
        logger.removeHandler(handler)
    assert "a line\n" in terminal.getvalue()
    assert "a warning\n" in terminal.getvalue()


def test_elsewhere_there_are_plain_lines_and_no_table(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    table = PipelineTable(ALL, order=STEPS, stream=stream)
    with table.step("stage1"), table.progress("Training stage1", 9, "steps") as work:
        work.advance(9, loss=0.5)
    table.close()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("Training stage1 9/9 steps, ")
    assert line.endswith("loss 0.5, 0 s so far")


def test_outside_a_step_work_has_a_bar_of_its_own(terminal: Terminal):
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    with table.progress("Evaluating", 4, "questions") as work:
        work.advance(4)
    assert "4/4" in terminal.getvalue()
    assert "waiting" not in terminal.getvalue()


CHILD = """
import logging, sys, time
from cluenet import cli, progress
from cluenet.pipeline_table import PipelineTable
logging.basicConfig(format="%(message)s", handlers=[cli._Messages()])
table = PipelineTable(["prepare", "stage1", "report"], order=["prepare", "stage1", "report"])
for step in ("prepare", "stage1", "report"):
    with table.step(step), table.progress("Working", total=3, unit="videos") as work:
        for number in range(3):
            time.sleep(0.12)
            work.advance(1, quarantined=1)
            logging.warning("a warning of %s %d", step, number)
    print("between", file=sys.stderr)
print("the end")
"""


def test_a_terminal_shows_whole_lines_and_one_table_at_the_end():
    seen = window.run([sys.executable, "-c", CHILD], env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert seen.code == 0
    found = [line.split() for line in seen.lines]
    wanted = [
        [f"a warning of {step} {n}".split() for n in range(3)] + [["between"]]
        for step in ("prepare", "stage1", "report")
    ]
    assert [line for line in found if line[0] in ("a", "between")] == [line for part in wanted for line in part]
    assert [line[:2] for line in found if line[0] in ("step", "prepare", "stage1", "report")] == [
        ["step", "state"], ["prepare", "finished"], ["stage1", "finished"], ["report", "finished"]
    ]  # fmt: skip
    assert found[-1] == ["the", "end"]


# ---------------------------------------------------------------------------------------------------- from verbs


def shown_by(until: str, *, verbose: bool = False, **sections) -> Run:
    made = Recipe.from_dict({"name": "mine", "data": {"train": ["clueworld"], "test": ["clueworld"]}, **sections})
    return run_of(SimpleNamespace(obj=verbose), made, None, until=until)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        ("report", ALL),
        ("model", ALL[:5]),
        ("prepare", ["prepare"]),
        ("evaluate", ["prepare", "evaluate"]),
    ],
)
def test_every_verb_shows_the_steps_it_leads_to(until: str, steps: list[str]):
    assert list(lines(shown_by(until)._table))[1:] == steps


def test_a_stage_that_is_off_has_no_row():
    assert "stage2" not in lines(shown_by("report", train={"stage2": {"steps": 0}})._table)


def test_with_verbose_there_are_lines_between_those_of_ray(monkeypatch: pytest.MonkeyPatch, terminal: Terminal):
    monkeypatch.setattr(sys, "stderr", terminal)
    run = shown_by("report", verbose=True)
    assert run._table is None
    with run._progress("Decoding", 4, "clips") as work:
        work.advance(4)
    assert terminal.getvalue().startswith("Decoding 4/4 clips, ")


def test_a_run_tells_the_table_of_its_steps(clock: Clock, tmp_path, terminal: Terminal):
    table = PipelineTable(ALL, order=STEPS, stream=terminal)
    data = {"train": [{"name": "clueworld", "folder": str(tmp_path / "world"), "videos": 2}]}
    run = Run(
        Recipe.from_dict({"name": "mine", "data": data, "runs": str(tmp_path / "runs"), "store": str(tmp_path)}),
        table=table,
    )
    with run._timed("model"):
        clock.now += 5
        assert lines(table)["model"] == ["running", "5 s"]
    with run._timed("evaluate", unless=True):
        assert lines(table)["evaluate"] == ["waiting"]
