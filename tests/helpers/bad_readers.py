"""A plug-in with a reader that does, to files of certain names, what C++ decoders do: hang, abort, eat memory."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from cluenet.contracts import Reader, VideoFile
from cluenet.errors import MediaError
from cluenet.registry import ComponentConfig, register


@register.reader("bad")
class BadReader(Reader):
    """`pyav`, but a file called hang, abort, exit, late_abort, memory, heavy, broken or bug comes to that end.

    With `log`, each opening is a line `pid path` of that file.
    """

    class Config(ComponentConfig):
        log: str | None = Field(None, description="File to append to.")

    config: Config

    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        if self.config.log:
            with open(self.config.log, "a") as log:  # a short line is appended in one piece
                log.write(f"{os.getpid()} {path}\n")
        match Path(path).stem:
            case "hang":
                time.sleep(600)
            case "abort":
                os.abort()
            case "exit":
                os._exit(3)
            case "late_abort":  # a decoder's own thread, once the file is delivered
                threading.Timer(0.2, os.abort).start()
            case "memory":
                bytearray(4 * 2**30)  # pages that are never touched: harmless where nothing forbids it
            case "broken":
                raise MediaError("corrupt", f"{path}: broken")
            case "bug":
                raise ZeroDivisionError("a mistake in the reader")
        video = register.reader.parse("pyav").build().open(path, fps=fps)
        if Path(path).stem == "heavy":
            frames = video.frames
            video.frames = lambda *asked: frames(*asked).view(Heavy)
        return video


class Heavy(np.ndarray):
    """There is memory for it, but for no copy."""

    def __reduce_ex__(self, protocol: object) -> Any:
        raise MemoryError


@register.reader("worse")
class WorseReader(BadReader):
    """The same under another name, to fall back to."""


@register.reader("slow")
class SlowReader(Reader):
    """`pyav`, after a second and a half."""

    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        time.sleep(1.5)
        return register.reader.parse("pyav").build().open(path, fps=fps)
