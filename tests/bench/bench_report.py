"""How long the report of a large evaluation takes, and how large it is: 5,000 invented answers about 1,000 clips, with a baseline.

Seconds are those of the processor in this process, which has one thread, so that other work on the machine does not count.
The model is not asked again here; `cluenet report` does so for 60 questions, whatever the size of the test set.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluenet.report.build import build_report
from helpers.reports import invented_run

QUESTIONS, CLIPS = 5000, 1000
MOST_SECONDS, MOST_BYTES = 30.0, 15_000_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return invented_run(tmp_path_factory.mktemp("bench") / "run", questions=QUESTIONS, clips=CLIPS)


@pytest.mark.benchmark(timer=time.process_time)
def test_report_of_5000_questions(benchmark, run: Path, say) -> None:
    path = benchmark.pedantic(build_report, (run, run), rounds=2)
    size = path.stat().st_size
    benchmark.extra_info.update(bytes=size)
    say(f"{QUESTIONS} questions: {benchmark.stats.stats.min:.1f} s, {size / 1e6:.1f} MB")
    assert benchmark.stats.stats.min < MOST_SECONDS
    assert size < MOST_BYTES
