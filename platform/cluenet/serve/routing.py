"""How requests reach replicas: questions about one clip go to the engine that has watched it, and once more where one dies.

`serve.experimental.consistent_hash_router` of Ray 2.60 is experimental: only this file knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ray.exceptions import ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from cluenet.serve.errors import ServeError
from cluenet.serve.messages import Asked, ClipRef, EngineReply, FramesWanted
from cluenet.serve.metrics import Part

Result = TypeVar("Result")
LOST = (RayActorError, WorkerCrashedError, ReplicaUnavailableError)
"""The replica that had the request is gone."""
FULL = (BackPressureError, DeploymentUnavailableError)
METRICS_SECONDS = 5.0
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


def by_clip() -> RequestRouterConfig:
    """A clip's questions go to one replica; where that is full or dies, to the next one on the ring. A question that all
    refuse waits at most 0.1 s before it tries again: with Ray's 0.5 s, replicas idle while questions wait."""
    return RequestRouterConfig(
        request_router_class=ROUTER, request_router_kwargs={"num_fallback_replicas": 2}, max_backoff_s=0.1
    )


class RayBackend:
    """`service.Backend` over Serve's handles. retried: called when a question is asked again."""

    def __init__(
        self, engine: DeploymentHandle, decoding: DeploymentHandle, *, others: Callable[[], DeploymentHandle],
        retried: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        self._engine, self._ingress, self._retried = engine, others, retried
        self._decoding = decoding.options(
            _by_reference=True
        )  # it answers with a reference, whatever the cluster's default

    async def ask(self, asked: Asked, frames: Any) -> EngineReply:
        """`frames`: what `decode` returned; FramesWanted where they are lost."""
        engine = self._engine_of(asked, frames)
        try:
            return await self._once_more(lambda: engine.ask.remote(asked, frames))
        except ObjectLostError:
            return FramesWanted()

    async def stream(self, asked: Asked, frames: Any) -> AsyncIterator[str | EngineReply]:
        engine, started = self._engine_of(asked, frames).options(stream=True), False
        for last in (False, True):
            try:
                async for item in engine.stream.remote(asked, frames):
                    started = True
                    yield item
                return
            except ObjectLostError:
                yield FramesWanted()
                return
            except FULL as error:
                raise _full(error) from None
            except LOST:
                if started or last:
                    raise _lost() from None
                self._retried()

    async def decode(self, clip: ClipRef, content: bytes | None) -> Any:
        """By an actor's call whatever the cluster's default is: the reply is a reference."""
        decoding = self._decoding.options(_by_reference=True)
        return await self._once_more(lambda: decoding.decode.remote(clip, content))

    def _engine_of(self, asked: Asked, frames: Any) -> DeploymentHandle:
        """A question alone goes by gRPC, which costs less than a call of an actor; frames go through the object store."""
        return self._engine.options(session_id=asked.clip.key, _by_reference=frames is not None)

    async def metrics(self) -> list[Part]:
        """Of every replica that answers in time."""
        found = await asyncio.gather(
            *(_metrics_of(handle) for handle in (self._ingress(), self._decoding, self._engine))
        )
        return [part for parts in found for part in parts]

    async def _once_more(self, call: Callable[[], Awaitable[Result]]) -> Result:
        try:
            try:
                return await call()
            except LOST:
                self._retried()
                return await call()
        except LOST:
            raise _lost() from None
        except FULL as error:
            raise _full(error) from None


async def _metrics_of(handle: DeploymentHandle) -> Sequence[Part]:
    name = handle.deployment_name
    with suppress(TimeoutError, *LOST, *FULL):
        found = await handle.broadcast("metrics").results_async(timeout_s=METRICS_SECONDS, return_exceptions=True)
        return [(name, *one) for one in found if not isinstance(one, BaseException)]
    return []


def _lost() -> ServeError:
    message = "the replica that answered ended. Ask again."
    return ServeError(503, "overloaded_error", message, code="replica_lost", retry_after=5)


def _full(error: Exception) -> ServeError:
    message = "every replica is busy or is being replaced. Ask again later."
    return ServeError(
        503, "overloaded_error", message, code="overloaded", retry_after=getattr(error, "retry_after_s", None) or 5
    )
