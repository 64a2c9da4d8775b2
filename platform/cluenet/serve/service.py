"""From a request to its answer: spool the video, look at its size, wait for admission, ask an engine, decode where it must be.

Ray-free: what Ray does is behind `Backend`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cluenet.config.serve import ServeSection
from cluenet.decoding import FramePolicy
from cluenet.model.checkpoint import model_address, read_frame_policy, read_plugins
from cluenet.plugins import load_components
from cluenet.records import content_hash
from cluenet.serve.admission import Admission
from cluenet.serve.errors import ServeError
from cluenet.serve.fetch import Fetcher
from cluenet.serve.messages import Asked, BytesWanted, ClipRef, EngineReply, FramesWanted, Reply
from cluenet.serve.metrics import IngressMetrics, Part
from cluenet.serve.probe import VideoFacts, probe
from cluenet.serve.spool import Spooled

ATTEMPTS = 3
"""Times that an engine is asked: frames may go lost on the way, and clips leave the cache while a question waits."""
FACTS_KEPT = 10_000
"""Videos whose size is remembered, so that asking again does not open them again."""


class Backend(Protocol):
    """The other deployments."""

    async def ask(self, asked: Asked, frames: Any) -> EngineReply: ...

    def stream(self, asked: Asked, frames: Any) -> AsyncIterator[str | EngineReply]: ...

    async def decode(self, clip: ClipRef, content: bytes | None) -> Any: ...

    async def metrics(self) -> list[Part]: ...


@dataclass(frozen=True)
class ServedModel:
    """What clients are told about the model."""

    name: str
    fingerprint: str
    frame_policy: str
    created: int  # Unix time

    @classmethod
    def of(cls, folder: str | Path, name: str | None) -> ServedModel:
        """Raises CheckpointError for a folder that is no model."""
        folder = Path(folder).absolute()
        load_components(read_plugins(folder), only=("samplers",))
        policy = FramePolicy.from_dict(read_frame_policy(folder)).fingerprint()
        shown = name or (folder.parent.name if folder.name == "model" else folder.name)
        return cls(shown, model_address(folder), policy, int((folder / "model_config.json").stat().st_mtime))


@dataclass(frozen=True, repr=False)
class Wish:
    """One question of a client. `video`: fetches it."""

    id: str
    video: Callable[[], Awaitable[Spooled]]
    question: str
    options: tuple[str, ...] = ()
    start_seconds: float = 0.0
    end_seconds: float | None = None
    utilities: bool = False
    most_tokens: int | None = None


@dataclass(repr=False)
class Outcome:
    """An answered question. `seconds`: {fetch, decode, wait, watch, answer, total}."""

    reply: Reply
    clip: ClipRef
    sha256: str
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(repr=False)
class _Running:
    """A question under way."""

    asked: Asked
    spooled: Spooled
    started: float
    seconds: dict[str, float]

    def outcome(self, reply: EngineReply) -> Outcome:
        if not isinstance(reply, Reply):
            raise reply if isinstance(reply, ServeError) else _frames_lost()
        total = time.perf_counter() - self.started
        return Outcome(reply, self.asked.clip, self.spooled.sha256, {**self.seconds, **reply.seconds, "total": total})


class Service:
    """Answers questions with one model. `node`: of this process, where it spools videos."""

    def __init__(self, backend: Backend, model: ServedModel, section: ServeSection, *, node: str):
        self.backend, self.model, self.section, self.node = backend, model, section, node
        self.admission, self.fetcher, self.numbers = Admission(section.limits), Fetcher(section), IngressMetrics()
        self._facts: dict[str, VideoFacts] = {}
        self._decoding: dict[str, asyncio.Task[Any]] = {}

    async def answer(self, wish: Wish) -> Outcome:
        """Raises ServeError."""
        async with self._running(wish) as running:
            frames = None
            for _ in range(ATTEMPTS):
                reply = await self.backend.ask(running.asked, frames)
                if not isinstance(reply, FramesWanted):
                    return self._counted(running.outcome(reply))
                frames = await self._frames(running)
            raise _frames_lost()

    async def stream(self, wish: Wish) -> AsyncIterator[str | Outcome]:
        """Words of an open answer as they are written, at last the Outcome. Raises ServeError, also in the middle."""
        async with self._running(wish) as running:
            frames = None
            for _ in range(ATTEMPTS):
                async for item in self.backend.stream(running.asked, frames):
                    if isinstance(item, str):
                        yield item
                    elif not isinstance(item, FramesWanted):
                        yield self._counted(running.outcome(item))
                        return
                frames = await self._frames(running)
            raise _frames_lost()

    def _counted(self, outcome: Outcome) -> Outcome:
        for phase in ("fetch", "decode", "total"):
            self.numbers.seconds.labels(phase).observe(outcome.seconds[phase])
        return outcome

    # -------------------------------------------------------------------------------------- the video
    @asynccontextmanager
    async def _running(self, wish: Wish) -> AsyncIterator[_Running]:
        """With the video on disk, for as long as the block lasts, and admitted."""
        self._check(wish)
        limit = self.section.limits.request_timeout_seconds
        try:
            async with asyncio.timeout(limit), self.admission.admit() as admitted:
                started = time.perf_counter()
                spooled = await wish.video()
                try:
                    fetched = time.perf_counter() - started
                    admitted.add_frames((await self._facts_of(spooled)).frames)
                    took = {"fetch": fetched, "decode": 0.0}
                    yield _Running(self._asked(wish, spooled), spooled, started, took)
                finally:
                    spooled.cleanup()
        except TimeoutError:
            raise ServeError(504, "timeout_error", f"not answered within {limit:g} s", code="timeout") from None

    def _check(self, wish: Wish) -> None:
        most = self.section.limits.max_question_chars
        if (length := len(wish.question) + sum(map(len, wish.options))) > most:
            message = f"the question and its options have {length} characters, at most {most} are answered"
            raise ServeError(413, "invalid_request_error", message, param="question", code="question_too_long")
        if wish.end_seconds is not None and wish.end_seconds <= wish.start_seconds:
            message = f"the clip ends at {wish.end_seconds:g} s, not after its start at {wish.start_seconds:g} s"
            raise ServeError(400, "invalid_request_error", message, param="end_seconds")

    def _asked(self, wish: Wish, spooled: Spooled) -> Asked:
        start, end = wish.start_seconds, wish.end_seconds
        key = content_hash(spooled.sha256, start, end, self.model.frame_policy)
        clip = ClipRef(key, str(spooled.path), self.node, start, end)
        return Asked(wish.id, clip, wish.question, wish.options, wish.utilities, wish.most_tokens)

    async def _facts_of(self, spooled: Spooled) -> VideoFacts:
        """Of a file with this content, opened once."""
        found = self._facts.get(spooled.sha256)
        if found is None:
            found = await asyncio.to_thread(probe, await spooled.on_disk(), self.section.limits)
            while len(self._facts) >= FACTS_KEPT:
                self._facts.pop(next(iter(self._facts)))
            self._facts[spooled.sha256] = found
        return found

    async def _frames(self, running: _Running) -> Any:
        """The decoded clip in the object store."""
        started = time.perf_counter()
        try:
            return await self._decoded_once(running)
        finally:
            running.seconds["decode"] += time.perf_counter() - started

    async def _decoded_once(self, running: _Running) -> Any:
        """Questions about one clip that come together share one decoding."""
        key = running.asked.clip.key
        while (other := self._decoding.get(key)) is not None:
            try:
                return await asyncio.shield(other)
            except asyncio.CancelledError:  # of this request, or of the one that decodes: then its file is gone
                if not other.cancelled() or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
        task = self._decoding[key] = asyncio.create_task(self._decode(running))
        try:
            return await task
        finally:
            del self._decoding[key]

    async def _decode(self, running: _Running) -> Any:
        clip, path = running.asked.clip, await running.spooled.on_disk()
        found = await self.backend.decode(clip, None)
        if isinstance(found, BytesWanted):
            found = await self.backend.decode(clip, await asyncio.to_thread(path.read_bytes))
        if isinstance(found, ServeError):
            raise found
        return found


def _frames_lost() -> ServeError:
    message = "the frames of the video were lost on their way to the model, again and again. Ask again."
    return ServeError(503, "overloaded_error", message, code="frames_lost", retry_after=2)
