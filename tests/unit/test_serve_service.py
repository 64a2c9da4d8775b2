"""What happens between a request and its answer, with a backend that can be told what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluenet.config.serve import ServeSection
from cluenet.serve import service as service_module
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import Asked, BytesWanted, ClipFacts, ClipRef, EngineReply, FramesWanted, Reply
from cluenet.serve.probe import VideoFacts
from cluenet.serve.service import Outcome, ServedModel, Service, Wish
from cluenet.serve.spool import Spooled
from cluenet.serve.streaming import piped

MODEL = ServedModel("m", "f", "p", 0)


@dataclass
class Fake:
    """Wants frames for clips that it has not seen. `lost`: how often frames do not arrive."""

    lost: int = 0
    elsewhere: bool = False
    decoding: Callable[[ClipRef], Any] = lambda clip: "frames"
    seen: set[str] = field(default_factory=set)
    decoded: list[Any] = field(default_factory=list)

    async def ask(self, asked: Asked, frames: Any) -> EngineReply:
        if frames is not None and self.lost:
            self.lost -= 1
            return FramesWanted()
        if frames is not None:
            self.seen.add(asked.clip.key)
        if asked.clip.key not in self.seen:
            return FramesWanted()
        facts = ClipFacts((0.0,), 1.0, "decord")
        return Reply(asked.question, None, (), (), None, facts, {}, {"wait": 0.0, "watch": 0.0, "answer": 0.0}, {})

    async def stream(self, asked: Asked, frames: Any) -> AsyncIterator[str | EngineReply]:
        reply = await self.ask(asked, frames)
        if isinstance(reply, Reply):
            yield "some "
            yield "words"
        yield reply

    async def decode(self, clip: ClipRef, content: bytes | None) -> Any:
        self.decoded.append(content)
        if self.elsewhere and content is None:
            return BytesWanted()
        found = self.decoding(clip)
        return await found if asyncio.iscoroutine(found) else found

    async def metrics(self) -> list:
        return []


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose size was looked at."""
    paths: list[Path] = []

    def probe(path: Path, limits: Any) -> VideoFacts:
        paths.append(path)
        return VideoFacts(1.0, 10, 8, 8)

    monkeypatch.setattr(service_module, "probe", probe)
    return paths


def made(backend: Fake, **section: Any) -> Service:
    return Service(backend, MODEL, ServeSection.model_validate(section), node="here")


def wish(tmp_path: Path, name: str = "a", question: str = "why ?", **changes: Any) -> Wish:
    async def video() -> Spooled:
        path = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        path.write_bytes(b"video")
        return Spooled(path, name, 5)

    return Wish("id", video, question, **changes)


def test_a_clip_is_decoded_and_opened_once_and_spools_are_removed(tmp_path: Path, opened: list[Path]) -> None:
    backend = Fake()
    service = made(backend)

    async def run() -> list[Outcome]:
        first = await asyncio.gather(*(service.answer(wish(tmp_path)) for _ in range(5)))
        return [*first, await service.answer(wish(tmp_path)), await service.answer(wish(tmp_path, "b"))]

    found = asyncio.run(run())
    assert [one.reply.answer for one in found] == ["why ?"] * 7
    assert len(backend.decoded) == 2
    assert not list(tmp_path.iterdir())
    assert set(found[0].seconds) == {"fetch", "decode", "wait", "watch", "answer", "total"}
    assert len({one.clip.key for one in found}) == 2
    assert service.admission.requests == service.admission.frames == 0


def test_bounds_make_another_clip(tmp_path: Path) -> None:
    service = made(Fake())

    async def run() -> set[str]:
        bounds = [{}, {"start_seconds": 0.5}, {"end_seconds": 0.5}]
        return {(await service.answer(wish(tmp_path, **one))).clip.key for one in bounds}

    assert len(asyncio.run(run())) == 3


def test_a_video_on_another_node_is_sent_along(tmp_path: Path) -> None:
    backend = Fake(elsewhere=True)
    asyncio.run(made(backend).answer(wish(tmp_path)))
    assert backend.decoded == [None, b"video"]


def test_frames_that_are_lost_are_decoded_again_until_it_is_no_use(tmp_path: Path) -> None:
    backend = Fake(lost=1)
    asyncio.run(made(backend).answer(wish(tmp_path)))
    assert len(backend.decoded) == 2
    with pytest.raises(ServeError) as error:
        asyncio.run(made(Fake(lost=100)).answer(wish(tmp_path)))
    assert (error.value.status, error.value.code) == (503, "frames_lost")


def test_what_decoding_refuses_is_refused_and_the_spool_removed(tmp_path: Path) -> None:
    service = made(Fake(decoding=lambda clip: ServeError(400, "invalid_request_error", "no")))
    for answer in (service.answer, lambda one: anext(service.stream(one))):
        with pytest.raises(ServeError, match="no"):
            asyncio.run(answer(wish(tmp_path)))
    assert not list(tmp_path.iterdir())
    assert service.admission.requests == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"question": "x" * 5000}, 413), ({"options": ("x" * 5000, "y")}, 413), ({"start_seconds": 2.0, "end_seconds": 1.0}, 400)],
)  # fmt: skip
def test_questions_are_checked_before_videos_are_fetched(tmp_path: Path, changes: dict, status: int) -> None:
    with pytest.raises(ServeError) as error:
        asyncio.run(made(Fake()).answer(wish(tmp_path, **changes)))
    assert error.value.status == status
    assert not list(tmp_path.iterdir())


def test_too_many_requests_and_too_many_frames_are_sent_away(tmp_path: Path) -> None:
    async def run(**limits: int) -> list[Any]:
        gate = asyncio.Event()
        service = made(Fake(decoding=lambda clip: gate.wait()), limits=limits)
        tasks = [asyncio.create_task(service.answer(wish(tmp_path, str(n)))) for n in range(3)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for limits, status in (({"max_waiting": 2}, 429), ({"max_queued_frames": 25}, 503)):
        refused = [one for one in asyncio.run(run(**limits)) if isinstance(one, ServeError)]
        assert [one.status for one in refused] == [status]
        assert refused[0].retry_after >= 1


def test_requests_take_no_longer_than_they_may(tmp_path: Path) -> None:
    service = made(Fake(decoding=lambda clip: asyncio.sleep(60)), limits={"request_timeout_seconds": 0.1})
    with pytest.raises(ServeError) as error:
        asyncio.run(service.answer(wish(tmp_path)))
    assert error.value.status == 504
    assert not list(tmp_path.iterdir())


def test_who_waits_for_a_decoding_goes_on_when_its_owner_leaves(tmp_path: Path) -> None:
    async def run() -> tuple[Any, Outcome, int]:
        started, gate = asyncio.Event(), asyncio.Event()

        async def decoding(clip: ClipRef) -> str:
            started.set()
            await gate.wait()
            assert Path(clip.path).exists(), "the file of a request that has ended is gone"
            return "frames"

        backend = Fake(decoding=decoding)
        service = made(backend)
        owner = asyncio.create_task(service.answer(wish(tmp_path)))
        await started.wait()
        follower = asyncio.create_task(service.answer(wish(tmp_path)))
        while service.admission.requests < 2 or service.admission.frames != 20:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        owner.cancel()
        (gone,) = await asyncio.gather(owner, return_exceptions=True)
        gate.set()
        return gone, await follower, len(backend.decoded)

    gone, outcome, decodings = asyncio.run(run())
    assert isinstance(gone, asyncio.CancelledError)
    assert outcome.reply.answer == "why ?"
    assert decodings == 2


def test_streams_give_words_and_then_the_outcome(tmp_path: Path) -> None:
    service = made(Fake())

    async def run() -> list[Any]:
        return [item async for item in piped(service.stream(wish(tmp_path)))]

    *words, last = asyncio.run(run())
    assert words == ["some ", "words"]
    assert isinstance(last, Outcome)
    assert not list(tmp_path.iterdir())


def test_a_stream_that_nobody_reads_to_its_end_gives_everything_back(tmp_path: Path) -> None:
    service = made(Fake())

    async def run() -> None:
        items = piped(service.stream(wish(tmp_path)))
        await anext(items)
        await items.aclose()
        await asyncio.sleep(0.05)
        assert service.admission.requests == 0

    asyncio.run(run())
    assert not list(tmp_path.iterdir())
