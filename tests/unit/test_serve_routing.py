"""What becomes of a question when replicas die, are full, or lose frames: with handles that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, OwnerDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from cluenet.serve.errors import ServeError
from cluenet.serve.messages import Asked, ClipRef, FramesWanted
from cluenet.serve.routing import RayBackend

DIED, AWAY = ActorDiedError(), ActorUnavailableError("away", None)
OWNER = RayTaskError("ask", "trace", OwnerDiedError("00" * 28, None, "")).as_instanceof_cause()
LOST = ObjectLostError("00" * 28, None, "")
FULL = BackPressureError(3, 3)
ASKED = Asked("id", ClipRef("key", "path", "node", 0.0, None), "why ?")


class Handle:
    """Of a deployment: every call meets the next of `fates`, which is raised, or returned, or yielded from."""

    def __init__(self, *fates: Any):
        self.fates, self.set = list(fates), {}

    def options(self, **options: Any) -> Handle:
        self.set |= options
        return self

    @property
    def ask(self) -> Handle:
        return self

    decode = stream = ask

    def remote(self, *arguments: Any) -> Any:
        fate = self.fates.pop(0)
        return _stream(fate) if isinstance(fate, list) else _call(fate)


async def _call(fate: Any) -> Any:
    if isinstance(fate, Exception):
        raise fate
    return fate


async def _stream(fates: list[Any]) -> AsyncIterator[Any]:
    for fate in fates:
        yield await _call(fate)


def backend(engine: Handle, decoding: Handle | None = None) -> tuple[RayBackend, list[int]]:
    retries: list[int] = []
    return RayBackend(engine, decoding or Handle(), others=Handle, retried=lambda: retries.append(1)), retries


def ask(*fates: Any) -> tuple[Any, int]:
    made, retries = backend(Handle(*fates))
    return asyncio.run(made.ask(ASKED, None)), len(retries)


@pytest.mark.parametrize("error", [DIED, AWAY])
def test_a_question_is_asked_once_more(error: Exception) -> None:
    assert ask("answer") == ("answer", 0)
    assert ask(error, "answer") == ("answer", 1)
    with pytest.raises(ServeError) as found:
        ask(error, error, "answer")
    assert (found.value.status, found.value.code) == (503, "replica_lost")
    assert found.value.retry_after


@pytest.mark.parametrize("error", [LOST, OWNER])
def test_frames_whose_decoder_died_are_wanted_again(error: Exception) -> None:
    assert ask(error) == (FramesWanted(), 0)
    made, _ = backend(Handle([error]))
    assert asyncio.run(_all(made)) == [FramesWanted()]


def test_full_replicas_are_told_to_the_client() -> None:
    with pytest.raises(ServeError) as found:
        ask(FULL)
    assert found.value.status == 503
    made, _ = backend(Handle([FULL]))
    with pytest.raises(ServeError, match="busy"):
        asyncio.run(_all(made))


def test_questions_are_sent_to_the_replica_of_their_clip() -> None:
    engine = Handle("answer")
    asyncio.run(backend(engine)[0].ask(ASKED, None))
    assert engine.set["session_id"] == "key"


def test_frames_go_through_the_object_store_and_questions_alone_do_not() -> None:
    engine = Handle("answer", "answer", ["answer"])
    made, _ = backend(engine)
    asyncio.run(made.ask(ASKED, "frames"))
    assert engine.set["_by_reference"]
    asyncio.run(made.ask(ASKED, None))
    assert not engine.set["_by_reference"]
    asyncio.run(_all(made))
    assert engine.set == {"session_id": "key", "_by_reference": False, "stream": True}


def test_a_clip_is_decoded_once_more() -> None:
    made, retries = backend(Handle(), Handle(DIED, "frames"))
    assert asyncio.run(made.decode(ASKED.clip, None)) == "frames"
    assert len(retries) == 1


async def _all(made: RayBackend) -> list[Any]:
    return [item async for item in made.stream(ASKED, None)]


def test_streams_begin_again_only_before_their_first_piece() -> None:
    made, retries = backend(Handle([DIED], ["a", "b"]))
    assert asyncio.run(_all(made)) == ["a", "b"]
    assert len(retries) == 1
    pieces: list[Any] = []

    async def run(made: RayBackend) -> None:
        async for item in made.stream(ASKED, None):
            pieces.append(item)

    with pytest.raises(ServeError, match="ended"):
        asyncio.run(run(backend(Handle(["a", DIED], ["never"]))[0]))
    assert pieces == ["a"]
    with pytest.raises(ServeError, match="ended"):
        asyncio.run(_all(backend(Handle([DIED], [DIED]))[0]))
