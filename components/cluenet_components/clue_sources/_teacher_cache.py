"""What a teacher is, and a memory of its replies on disk, so that nothing is asked twice, kill -9 or not."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluenet import storage
from cluenet.folders import atomic_write_json
from cluenet.records import Frames, content_hash
from cluenet_components.clue_sources._teacher_replies import Reply

FORMAT = 1
"""Raise when what a remembered reply depends on changes."""


class QuestionFailed(Exception):  # noqa: N818  (counted, never shown as an error)
    """The teacher gives no reply to this one question: refused as malformed or too long, or the server failed again."""


@dataclass(frozen=True)
class Request:
    """`frames` None: text alone. `num_options`: how many letters the reply may be, 0 where text is asked for.
    `attempt`: the same may be asked again in the hope of another reply, which is then remembered beside the first."""

    prompt: str
    frames: Frames | None = None
    num_options: int = 0
    attempt: int = 0


class Teacher(ABC):
    """A model that is asked one thing at a time. Called from several threads."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a reply depends on besides the request: the model and how it decodes."""

    @abstractmethod
    def ask(self, request: Request) -> Reply:
        """Raises QuestionFailed, or DataError when no question can be asked at all."""


class Memory:
    """Replies of a teacher, each in a file named by the content of request and teacher."""

    def __init__(self, teacher: Teacher, folder: Path):
        self._teacher, self._folder, self._identity = teacher, folder, teacher.identity()

    def ask(self, request: Request) -> tuple[Reply, bool]:
        """The reply, and whether the teacher was asked for it now. Raises as `Teacher.ask`, and StorageError."""
        file = self._file(request)
        if (remembered := _read(file)) is not None:
            return remembered, False
        reply = self._teacher.ask(request)
        atomic_write_json(file, asdict(reply))
        return reply, True

    def _file(self, request: Request) -> Path:
        frames = "" if request.frames is None else frames_hash(request.frames)
        asked = request.prompt, frames, request.num_options, request.attempt
        name = content_hash(FORMAT, self._identity, *asked, length=40)
        return self._folder / name[:2] / f"{name}.json"


def _read(file: Path) -> Reply | None:
    """None when there is no such file, or it is damaged. Raises StorageError."""
    try:
        return Reply(**json.loads(storage.bring(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def frames_hash(frames: Frames) -> str:
    """Of the pixels, their shape and their times."""
    digest = hashlib.sha256(frames.frames_THWC.tobytes())
    digest.update(json.dumps([frames.frames_THWC.shape, frames.seconds_T.tolist()]).encode())
    return digest.hexdigest()
