"""A Ctrl-C that a destructor swallows still ends the work."""

from __future__ import annotations

import io
import signal
import time

import pytest

from cluenet import cli, interrupts
from cluenet.progress import Progress


class Swallows:
    """As Python does with errors in destructors, and Ray in callbacks."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> bool:
        return kind is KeyboardInterrupt


def press_and_swallow() -> None:
    with Swallows():
        press()


def press() -> None:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.01)  # Python runs the handler before its next instruction


def test_it_is_raised_again_at_the_next_sign_of_progress():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts.remembered(), Progress("D", 3, stream=io.StringIO()) as progress:
        progress.advance()
        press_and_swallow()
        reached.append("swallowed")
        progress.advance()
        reached.append("went on")
    assert reached == ["swallowed"]


def test_it_is_raised_again_at_the_end_of_a_step():
    with interrupts.remembered(), pytest.raises(KeyboardInterrupt), Progress("Decoding", stream=io.StringIO()):
        press_and_swallow()


def test_nobody_is_interrupted_without_ctrl_c_or_by_an_earlier_one():
    with interrupts.remembered():
        press_and_swallow()
    with interrupts.remembered():
        interrupts.check()


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts.remembered():
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_another_error_of_the_step_is_not_hidden():
    with interrupts.remembered(), pytest.raises(ValueError, match="broken"), Progress("D", stream=io.StringIO()):
        press_and_swallow()
        raise ValueError("broken")


def test_the_command_line_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def work(*_: object, **__: object) -> None:
        press_and_swallow()
        interrupts.check()

    monkeypatch.setattr(cli, "app", work)
    assert cli.call([]) == 130
    assert "interrupted; run the same command again to resume" in capsys.readouterr().err
