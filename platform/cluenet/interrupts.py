"""Ctrl-C that cannot be lost.

Python raises KeyboardInterrupt wherever the program happens to be. Inside a destructor or a callback from C++, of which Ray
has many, it is printed or dropped, and the program goes on as if nobody had pressed anything. Here it is remembered, and
raised again where progress is shown.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_asked = False


@contextmanager
def remembered() -> Iterator[None]:
    """Inside the block a Ctrl-C is raised as ever, and again by `check` should it have been swallowed."""
    global _asked
    if threading.current_thread() is not threading.main_thread():  # others never get the signal
        yield
        return
    before = signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        _asked = False
        signal.signal(signal.SIGINT, before)


def check() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed in the block."""
    if _asked and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt
