"""How far a piece of work is: a live bar with rate and remaining time on a terminal, plain lines every few seconds elsewhere.

Only the driver process shows progress; workers report to it. Runs of a recipe show all their steps in one table instead
(`pipeline_table`).
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from cluenet import interrupts

SECONDS_BETWEEN_LINES = 5.0


class View(Protocol):
    """Where progress is looked at live. It is told when something has changed, and reads the rest."""

    def start(self, progress: Progress) -> None: ...

    def update(self, progress: Progress) -> None: ...

    def stop(self, progress: Progress) -> None: ...


class Progress:
    """`with Progress("Decoding", total=200, unit="clips") as progress: progress.advance(1, loss=0.3)`.

    total: how many units there are, None when that is not known; it may be set later. view: where it is looked at; else a bar
    on a terminal, unless `live` is False. Everything goes to standard error, so that standard output stays what a verb prints. Ctrl-C leaves the line as it is.
    """

    def __init__(
        self, title: str, total: int | None = None, unit: str = "items", *, stream: TextIO | None = None,
        view: View | None = None, live: bool = True,
    ):  # fmt: skip
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.values: dict[str, float] = {}
        self._stream = stream or sys.stderr
        self._started = self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None  # done, and when, at the first report
        self._view = view or (_Bar(self, self._stream) if live and on_terminal(self._stream) else None)

    def __enter__(self) -> Progress:
        self._started = self._printed = time.monotonic()
        if self._view:
            self._view.start(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view:
            self._view.stop(self)
        else:
            self._print("" if kind is None else "stopped")
        if kind is None:
            interrupts.check()

    def advance(self, n: int = 1, **values: float) -> None:
        """`n` more units are done; `values` (a loss, a count) are shown behind the bar until they are given again."""
        interrupts.check()
        self.done += n
        self.values.update(values)
        self._first = self._first or (self.done, time.monotonic())
        if self._view:
            self._view.update(self)
        elif self.done != self.total and time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._print()  # the last line is written at the end, once

    def update(self, done: int, total: int | None = None, **values: float) -> None:
        """The same for a source that knows the absolute count, which may go back to where a new attempt starts."""
        self.total = self.total if total is None else total
        if done < self.done:
            self._first = None
        self.advance(done - self.done, **values)

    @property
    def rate(self) -> float:
        """Units per second since the first report: starting workers takes time, and what an earlier attempt did takes none."""
        done, since = self._first or (0, self._started)
        if self.done == done:
            done, since = 0, self._started
        return (self.done - done) / max(time.monotonic() - since, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None while the rate or the total is unknown."""
        return None if self.total is None or not self.done else max(0.0, self.total - self.done) / self.rate

    def line(self) -> str:
        """ "Decoding 40/200 clips, 12.3 clips/s, 13 s left, loss 0.31"."""
        of = "" if self.total is None else f"/{self.total}"
        parts = [f"{self.title} {self.done}{of} {self.unit}", f"{self.rate:.3g} {self.unit}/s"]
        if self.seconds_left:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts + [self.values_text()] * bool(self.values))

    def values_text(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())

    def _print(self, note: str = "") -> None:
        self._printed = time.monotonic()
        took = duration(self._printed - self._started)
        print(f"{self.line()}, {took} so far{', ' + note if note else ''}", file=self._stream, flush=True)


class _Bar:
    """The live bar of rich."""

    def __init__(self, progress: Progress, stream: TextIO):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        self._rich = RichProgress(*columns, console=Console(file=stream))
        self._task = self._rich.add_task(progress.title, total=progress.total, rate=progress.unit, values="")

    def start(self, progress: Progress) -> None:
        self._rich.start()

    def stop(self, progress: Progress) -> None:
        self.update(progress)
        self._rich.stop()

    def update(self, progress: Progress) -> None:
        rate = f"{progress.rate:.3g} {progress.unit}/s"
        self._rich.update(
            self._task, completed=progress.done, total=progress.total, rate=rate, values=progress.values_text()
        )


def on_terminal(stream: TextIO) -> bool:
    return Console(file=stream).is_terminal


def duration(seconds: float) -> str:
    """ "48 s", "3 min 20 s", "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
