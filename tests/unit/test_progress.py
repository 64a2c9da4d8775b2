"""Progress: plain lines where nobody looks live, a bar on a terminal, right numbers in both."""

from __future__ import annotations

import io

import pytest

from cluenet import progress
from cluenet.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_lines_come_every_few_seconds_and_at_the_end(clock: Clock):
    stream = io.StringIO()
    with Progress("Decoding", 40, "clips", stream=stream) as shown:
        for _ in range(30):
            clock.now += 0.5
            shown.advance(1, failed=2)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "Decoding 10/40 clips, 2 clips/s, 15 s left, failed 2, 5 s so far"
    assert lines[-1].startswith("Decoding 30/40 clips, 2 clips/s")


def test_the_last_line_is_written_once(clock: Clock):
    stream = io.StringIO()
    with Progress("Decoding", 2, "videos", stream=stream) as shown:
        for _ in range(2):
            clock.now += 6
            shown.advance()
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "Decoding 1/2 videos",
        "Decoding 2/2 videos",
    ]


def test_ctrl_c_shows_how_far_it_came(clock: Clock):
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress("Training", 9, "steps", stream=stream) as shown:
        shown.advance(4)
        raise KeyboardInterrupt
    assert stream.getvalue().rstrip().endswith("stopped")
    assert "Training 4/9 steps" in stream.getvalue()


def test_update_takes_the_absolute_count(clock: Clock):
    shown = Progress("Pretraining", None, "steps", stream=io.StringIO())
    assert shown.seconds_left is None
    shown.update(5, 20, loss=0.12345)
    clock.now += 10
    assert (shown.done, shown.total, shown.rate, shown.seconds_left) == (5, 20, 0.5, 30)
    shown.update(8)
    assert shown.done == 8
    assert shown.line() == "Pretraining 8/20 steps, 0.3 steps/s, 40 s left, loss 0.1235"


def test_a_new_attempt_that_starts_further_back_has_its_own_rate(clock: Clock):
    shown = Progress("Training", 400, "steps", stream=io.StringIO())
    shown.update(250)
    shown.update(200)
    clock.now += 10
    shown.update(210)
    assert (shown.done, shown.rate) == (210, 1)


def test_the_rate_counts_from_the_first_report(clock: Clock):
    """100 steps were done by an earlier attempt, and workers took 60 s to start."""
    shown = Progress("Training", 200, "steps", stream=io.StringIO())
    clock.now += 60
    shown.update(101)
    clock.now += 10
    shown.update(121)
    assert (shown.rate, shown.seconds_left) == (2, 39.5)


def test_where_logs_go_by_there_is_no_bar(monkeypatch: pytest.MonkeyPatch):
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    with Progress("Decoding", 4, "clips", stream=stream, live=False) as shown:
        shown.advance(4)
    assert stream.getvalue().startswith("Decoding 4/4 clips, ")


def test_more_than_the_total_leaves_no_negative_time(clock: Clock):
    shown = Progress("Reading", 3, "rows", stream=io.StringIO())
    clock.now += 1
    shown.advance(5)
    assert shown.seconds_left == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    with Progress("Decoding", 4, "clips", stream=stream) as shown:
        shown.advance(4, loss=0.5)
    assert "4/4" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()
    assert "so far" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.7, "1 min 0 s")],
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text
