"""One live table for all steps of a run on a terminal: what is done, what goes on and how fast, what is still to come.

    step      state                     done               rate     took        left        loss   quarantined
    prepare   finished                  4,300/4,300 videos          1 min 2 s                       3
    pretrain  found
    stage1    training stage1           120/400 steps      1.9/s    1 min 4 s   2 min 26 s  0.412
    stage2    waiting

It disappears between two steps and stays where the run ends. Whatever is printed meanwhile stands above it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluenet.progress import Progress, duration, on_terminal

State = Literal["waiting", "found", "running", "finished", "stopped"]
"""found: it was finished before, by an earlier command or another run."""

NUMBERS = ("loss", "accuracy", "quarantined")
"""What work reports and the table has a column for; the stages' accuracy is that of the newest validation."""
SUMMED = "quarantined"
"""Adds up over the pieces of work of a step."""


@dataclass
class _Row:
    state: State = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    work: Progress | None = None  # the newest piece of work of this step
    numbers: dict[str, float] = field(default_factory=dict)  # of the pieces before it

    def number(self, name: str) -> float | None:
        now = self.work.values.get(name) if self.work else None
        before = self.numbers.get(name)
        if name == SUMMED and now is not None and before is not None:
            return now + before
        return before if now is None else now

    def keep(self) -> None:
        """The newest piece is over; the next one may come."""
        found = {name: self.number(name) for name in NUMBERS}
        self.numbers = {name: value for name, value in found.items() if value is not None}


class PipelineTable:
    """`Run` tells it when a step begins and ends; what works in a step shows itself through `progress`.

    steps: those that the command leads to, in order; one that is not among them gets its row when it begins.
    """

    def __init__(self, steps: Sequence[str], *, order: Sequence[str], stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._order, self._last = order, steps[-1]
        self._rows = {step: _Row() for step in steps}
        self._now: _Row | None = None
        self._stale = False  # something has happened since the table was printed

    def progress(self, title: str, total: int | None = None, unit: str = "items") -> Progress:
        """Takes the place of the class: a piece of work of the step that is under way."""
        shown_here = self._now is not None and on_terminal(self._stream)
        return Progress(title, total, unit, stream=self._stream, view=self if shown_here else None)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The block is that step's work."""
        row = self._begin(name)
        console = Console(file=self._stream)
        live = Live(get_renderable=self.table, console=console, transient=True, refresh_per_second=4)
        stopped = True
        try:
            if console.is_terminal:
                live.start()
            yield
            stopped = False
        finally:
            row.state, row.seconds = "stopped" if stopped else "finished", row.seconds + time.monotonic() - row.started
            self._now, self._stale = None, console.is_terminal
            live.stop()
            if stopped or (name == self._last and len(self._rows) > 1):  # a single step may come again
                self.close()

    def close(self) -> None:
        """The run is over: the table stays, unless it stands there already."""
        if self._stale:
            Console(file=self._stream).print(self.table())
            self._stale = False

    def _begin(self, name: str) -> _Row:
        self._rows.setdefault(name, _Row())
        self._rows = {step: self._rows[step] for step in self._order if step in self._rows}
        for step in self._order[: self._order.index(name)]:
            if step in self._rows and self._rows[step].state == "waiting":
                self._rows[step].state = "found"
        row = self._now = self._rows[name]
        row.state, row.started = "running", time.monotonic()
        return row

    # ------------------------------------------------------------------------------------ a `progress.View`
    def start(self, progress: Progress) -> None:
        if self._now:
            self._now.keep()
            self._now.work = progress

    def update(self, progress: Progress) -> None:
        """The table is drawn a few times a second, whatever comes."""

    def stop(self, progress: Progress) -> None: ...

    # ------------------------------------------------------------------------------------------------ to look at
    def table(self) -> Table:
        names = [name for name in NUMBERS if any(row.number(name) is not None for row in self._rows.values())]
        table = Table("step", "state", box=None, padding=(0, 2, 0, 0), header_style="bold")
        for title in ("done", "rate", "took", "left", *names):
            table.add_column(title, justify="right")
        for step, row in self._rows.items():
            numbers = (_shown(name, row.number(name)) for name in names)
            table.add_row(step, *_cells(row), *numbers, style=None if row.state == "running" else "dim")
        return table


def _cells(row: _Row) -> tuple[str, str, str, str, str]:
    """state, done, rate, took, left"""
    if row.state in ("waiting", "found"):
        return row.state, "", "", "", ""
    work, running = row.work, row.state == "running"
    took = row.seconds + (time.monotonic() - row.started if running else 0.0)
    if work is None:
        return row.state, "", "", duration(took), ""
    of = "" if work.total is None else f"/{work.total:,}"
    left = duration(work.seconds_left) if running and work.seconds_left else ""
    state = work.title[:1].lower() + work.title[1:] if running else row.state
    return state, f"{work.done:,}{of} {work.unit}", f"{work.rate:.3g}/s" if running else "", duration(took), left


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if name == "accuracy" else f"{value:.4g}"
