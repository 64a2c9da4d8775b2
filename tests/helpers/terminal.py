"""Runs a command in a terminal of its own, and reads what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyte

COLUMNS, LINES = 130, 40


@dataclass(frozen=True)
class Seen:
    code: int
    lines: list[str]  # all that stands in the window, what has scrolled out of it first

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Seen:
    """To its end; standard output and standard error are the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", **(env or {})}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
        variables.pop(name, None)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, cwd=cwd) as process:
        os.close(theirs)
        screen = pyte.HistoryScreen(COLUMNS, LINES, history=10_000)
        stream = pyte.ByteStream(screen)
        for data in _chunks(ours):
            stream.feed(data)
    os.close(ours)
    return Seen(process.returncode, list(_lines(screen)))


def _chunks(file: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(file, 65536)
        except OSError:  # Linux: the other side is closed
            return
        if not data:
            return
        yield data


def _lines(screen: pyte.HistoryScreen) -> Iterator[str]:
    for row in screen.history.top:
        yield "".join(row[column].data for column in range(COLUMNS)).rstrip()
    yield from (line.rstrip() for line in screen.display if line.strip())
