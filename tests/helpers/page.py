"""What the tests of the page need: a server on loopback, replies made beforehand, videos of which every pixel is known."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.types import ASGIApp

from cluenet.config.serve import Limits, ServeSection
from cluenet.serve.admission import Admission
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import ClipFacts, ClipRef, Reply
from cluenet.serve.metrics import IngressMetrics
from cluenet.serve.service import Outcome, ServedModel, Wish
from cluenet.testing.videos import write_video

FPS = 5
SECONDS = 4
MARK = (0.25, 0.2, 0.55, 0.5)
"""x1, y1, x2, y2 of the white mark of `write_marked`, fractions of the frame."""
MARK_SECONDS = (2.0, 2.4)
"""When it is seen, the end left out."""


def write_marked(path: Path, *, width: int = 640, height: int = 360) -> Path:
    """A black video with a white rectangle at MARK in the frames of MARK_SECONDS. A suffix .webm gives VP9, .mp4 H.264."""
    frames_THWC = np.zeros((FPS * SECONDS, height, width, 3), np.uint8)
    x1, y1, x2, y2 = (round(part * side) for part, side in zip(MARK, (width, height) * 2, strict=True))
    first, end = (round(seconds * FPS) for seconds in MARK_SECONDS)
    frames_THWC[first:end, y1:y2, x1:x2] = 255
    codec = {".webm": "libvpx-vp9", ".mp4": "libx264"}[path.suffix]
    options = {"deadline": "realtime", "cpu-used": "8"} if path.suffix == ".webm" else {}
    return write_video(path, frames_THWC, fps=FPS, codec=codec, codec_options=options)


def clue(text: str, start: float | None = None, end: float | None = None, **values: Any) -> dict[str, Any]:
    """A row of `Reply.clues`; kept, without box, unless said otherwise."""
    row = {
        "text": text,
        "words": [],
        "start_seconds": start,
        "end_seconds": end,
        "box": None,
        "gate": 0.9,
        "kept": True,
    }
    return {**row, "utility": None, **values}


def marked_box(seconds: float = MARK_SECONDS[0]) -> dict[str, float]:
    return dict(zip(("seconds", "x1", "y1", "x2", "y2"), (seconds, *MARK), strict=True))


CLUES = (
    clue("red hits blue", 0.5, 1.5, gate=0.91),
    clue("a white mark appears", 2.0, 2.4, box=marked_box(), gate=0.84),
    clue("green leaves", 3.0, 3.5, kept=False, gate=0.12),
    clue("nothing to see", kept=False, gate=0.05),
)


def reply(**values: Any) -> Reply:
    """Of a model that is fairly sure of the first of three options."""
    made = {
        "answer": "red", "index": 0, "option_logprobs": tuple(math.log(p) for p in (0.7, 0.2, 0.1)), "clues": CLUES,
        "chain": "red hits blue . a white mark appears . so red",
        "facts": ClipFacts((0.0, 1.0, 2.0, 3.0), float(SECONDS), "pyav"), "cached": {"frames": True, "clip": False},
        "seconds": {"wait": 0.002, "watch": 0.12, "answer": 0.034},
        "usage": {"visual_tokens": 48, "prompt_tokens": 60, "completion_tokens": 1, "total_tokens": 61},
    }  # fmt: skip
    return Reply(**{**made, **values})


@dataclass
class RecordedService:
    """Stands for `service.Service` under the real routes. `reply`: what is answered, or refused. `held`: until it is cleared,
    answers wait. `wishes`: what was asked; `contents`: the hashes of the videos."""

    reply: Reply | ServeError = field(default_factory=reply)
    held: bool = False
    wishes: list[Wish] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    section: ServeSection = field(default_factory=ServeSection)
    numbers: IngressMetrics = field(default_factory=IngressMetrics)
    admission: Admission = field(default_factory=lambda: Admission(Limits()))
    model: ServedModel = field(default_factory=lambda: ServedModel("tiny", "f" * 12, "p" * 12, 0))

    async def answer(self, wish: Wish) -> Outcome:
        spooled = await wish.video()
        spooled.cleanup()
        self.wishes.append(wish)
        self.contents.append(spooled.sha256)
        while self.held:
            await asyncio.sleep(0.01)
        if isinstance(self.reply, ServeError):
            raise self.reply
        clip = ClipRef("key", str(spooled.path), "here", wish.start_seconds, wish.end_seconds)
        seconds = {"fetch": 0.01, "decode": 0.0, **self.reply.seconds, "total": 0.17}
        return Outcome(self.reply, clip, spooled.sha256, seconds)


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The URL of an application, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
