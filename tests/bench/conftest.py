"""What all measurements share: `say` for figures, one table of them at the end, and an end after `--minutes`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

FIGURES = "figures"
STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    help_ = "of a session: a bench that would begin in the last tenth of them is left out, and the table says so"
    parser.addoption("--minutes", type=float, default=20.0, help=help_)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints figures at once, and again in the table at the end."""

    def said(text: str) -> None:
        record_property(FIGURES, text)
        with capsys.disabled():
            print(f"\n{text}")

    return said


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if time.monotonic() - STARTED > 0.9 * minutes * 60:
        pytest.skip(f"not measured: {minutes:g} minutes are nearly over; run this file alone")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("bench", "outcome", "seconds", "figures", show_lines=True)
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.getreports(outcome):
            table.add_row(_name(report), outcome, f"{_seconds(terminalreporter, report):.0f}", _figures(report))
    if table.row_count:
        minutes = (time.monotonic() - STARTED) / 60
        terminalreporter.section(f"measurements, {minutes:.1f} minutes")
        Console(file=terminalreporter._tw._file, width=160).print(table)


def _name(report: pytest.TestReport) -> str:
    file, _, name = report.nodeid.partition("::")
    return f"{Path(file).stem.removeprefix('bench_')}: {name.removeprefix('test_')}"


def _seconds(terminalreporter: pytest.TerminalReporter, wanted: pytest.TestReport) -> float:
    """With what was set up for it, such as models and clusters that the next ones share."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    return sum(getattr(one, "duration", 0.0) for one in reports if getattr(one, "nodeid", None) == wanted.nodeid)


def _figures(report: pytest.TestReport) -> str:
    """What it said, or why it said nothing."""
    properties = getattr(report, "user_properties", ())  # a file that cannot be collected has none
    said = [str(value).strip() for name, value in properties if name == FIGURES]
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        said.append(report.longrepr[2])
    elif report.failed and report.longrepr is not None:
        said.append(str(getattr(report.longrepr, "reprcrash", report.longrepr)).strip().splitlines()[-1])
    return "\n".join(said)
