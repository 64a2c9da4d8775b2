"""Back-pressure: how many requests, and how many video frames, one ingress has in hand before it sends clients away."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cluenet.config.serve import Limits
from cluenet.serve.errors import ServeError

FIRST_RETRY_SECONDS = 5.0
"""Before any request has ended and nothing is known of the rate."""
LONGEST_RETRY_SECONDS = 120.0
NEWEST_WEIGHT = 0.1
"""Of the last request in the mean time that requests take."""


class BodyBudget:
    """Bytes of the request bodies in hand, which are in memory or in temporary files before a request can be admitted.

    A body above `max_queued_bytes` by itself is taken while no other is in hand.
    """

    def __init__(self, limits: Limits):
        self._most, self.bytes = limits.max_queued_bytes, 0

    def add(self, count: int, *, own: int) -> None:
        """count: more bytes of a request that has `own` in hand already. Raises ServeError 503."""
        others = self.bytes - own
        if others and self.bytes + count > self._most:
            message = f"requests of {others} bytes are in hand, too many for this one. Ask again later."
            raise ServeError(
                503, "overloaded_error", message, code="too_many_bytes_in_hand", retry_after=FIRST_RETRY_SECONDS
            )
        self.bytes += count

    def give_back(self, own: int) -> None:
        self.bytes -= own


class Admitted:
    """A request that was let in. `frames`: what it counts for."""

    def __init__(self, admission: Admission):
        self._admission, self.frames = admission, 0

    def add_frames(self, frames: int) -> None:
        """Once the video is known. Raises ServeError 503 where all frames in hand would be too many."""
        self._admission._add_frames(frames)
        self.frames += frames


class Admission:
    """Lets requests in up to `max_waiting` requests (else 429) and `max_queued_frames` frames (else 503).

    A video that is above `max_queued_frames` by itself is let in while no other is in hand. One per ingress replica; used
    by one event loop. `clock`: seconds.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic):
        self._limits, self._clock = limits, clock
        self.requests, self.frames = 0, 0  # in hand
        self._mean_seconds: float | None = None  # that a request is in hand

    def check(self) -> None:
        """Raises ServeError 429 where no request is let in now: before its body is read, which may be a whole video."""
        if (excess := self.requests + 1 - self._limits.max_waiting) > 0:
            message = f"{self.requests} requests are in hand, the most that are. Ask again later."
            raise self._refusal(429, "rate_limit_error", "too_many_requests", message, excess / max(self.requests, 1))

    @asynccontextmanager
    async def admit(self, frames: int = 0) -> AsyncIterator[Admitted]:
        """For as long as the block lasts. Raises ServeError 429 or 503 with `retry_after`."""
        self.check()
        admitted, started = Admitted(self), self._clock()
        self.requests += 1
        try:
            admitted.add_frames(frames)
            yield admitted
            self._ended(self._clock() - started)
        finally:
            self.requests -= 1
            self.frames -= admitted.frames

    def _add_frames(self, frames: int) -> None:
        excess = self.frames + frames - self._limits.max_queued_frames
        if frames and self.frames and excess > 0:
            message = f"videos of {self.frames} frames are in hand; {frames} more are too many now. Ask again later."
            raise self._refusal(503, "overloaded_error", "too_many_frames", message, excess / self.frames)
        self.frames += frames

    def _ended(self, seconds: float) -> None:
        mean = seconds if self._mean_seconds is None else self._mean_seconds
        self._mean_seconds = mean + NEWEST_WEIGHT * (seconds - mean)

    def _refusal(self, status: int, kind: str, code: str, message: str, share: float) -> ServeError:
        """share: of what is in hand that must end first. By Little's law, what is in hand ends within the mean time."""
        seconds = FIRST_RETRY_SECONDS if self._mean_seconds is None else share * self._mean_seconds
        return ServeError(status, kind, message, code=code, retry_after=min(max(seconds, 1.0), LONGEST_RETRY_SECONDS))
