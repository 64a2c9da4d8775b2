"""What the deployments say to each other: plain values that are pickled. A refusal is returned, not raised, so that nothing
of a request gets into the log of a replica."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cluenet.serve.errors import ServeError


@dataclass(frozen=True)
class ClipRef:
    """A spooled video: where it lies, and which part of it is asked about. Times are seconds of the file."""

    key: str  # of what the model sees: content, bounds and frame policy
    path: str
    node: str  # on whose disk it is
    start_seconds: float
    end_seconds: float | None


@dataclass(frozen=True, repr=False)
class EncodedClip:
    """A decoded clip: `decoding.encode_frames`, and what the answer says about it."""

    blob: bytes
    reader: str
    seconds: float  # that decoding took


@dataclass(frozen=True)
class ClipFacts:
    frame_seconds: tuple[float, ...]  # of the clip's clock
    duration_seconds: float
    reader: str


@dataclass(frozen=True, repr=False)
class Asked:
    """One question to an engine."""

    id: str  # of the request
    clip: ClipRef
    question: str
    options: tuple[str, ...] = ()
    utilities: bool = False
    most_tokens: int | None = None


@dataclass(frozen=True)
class FramesWanted:
    """The engine has neither watched this clip nor its frames."""


@dataclass(frozen=True)
class BytesWanted:
    """The video is on another node's disk."""


@dataclass(frozen=True, repr=False)
class Reply:
    """An engine's answer."""

    answer: str
    index: int | None  # among the options
    option_logprobs: tuple[float, ...]
    clues: tuple[dict[str, Any], ...]  # rows of `plain.clue_row` and {utility}, on the file's clock
    chain: str | None
    facts: ClipFacts
    cached: dict[str, bool]  # {frames, clip}
    seconds: dict[str, float]  # {wait, watch, answer}
    usage: dict[str, int]
    cut: bool = False  # the answer has all the tokens that it was allowed

    @property
    def probabilities(self) -> list[float] | None:
        """Of the options."""
        return [math.exp(value) for value in self.option_logprobs] or None


EngineReply = Reply | FramesWanted | ServeError
