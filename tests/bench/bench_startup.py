"""How long the program takes to say what it can do: a process from its start to its end, on an idle machine."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "at_most_seconds"), [(["--help"], 0.5), (["components"], 5.0)], ids=lambda value: str(value)
)
def test_start_up(benchmark, arguments: list[str], at_most_seconds: float) -> None:
    command = [sys.executable, "-m", "cluenet", *arguments]
    benchmark.pedantic(subprocess.run, (command,), {"check": True, "capture_output": True}, rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.min < at_most_seconds
