"""Back-pressure: by count and by frames, given back whatever happens, with a time to come back that follows the rate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from cluenet.config.serve import Limits
from cluenet.serve.admission import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, Admission
from cluenet.serve.errors import ServeError


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def admission(clock: Clock | None = None, *, waiting: int = 4, frames: int = 100) -> Admission:
    return Admission(Limits(max_waiting=waiting, max_queued_frames=frames), clock=clock or Clock())


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def refused(made: Admission, frames: int = 0) -> ServeError:
    before = (made.requests, made.frames)
    with pytest.raises(ServeError) as caught:
        async with made.admit(frames):
            pytest.fail("it was let in")
    assert (made.requests, made.frames) == before, "a refusal counts for nothing"
    return caught.value


async def ended(made: Admission, clock: Clock, *seconds: float) -> None:
    for duration in seconds:
        async with made.admit():
            clock.seconds += duration


def test_by_count() -> None:
    async def test() -> None:
        made = admission()
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(made.admit(1))
            error = await refused(made, 1)
            assert (error.status, error.type, error.code) == (429, "rate_limit_error", "too_many_requests")
            assert "Retry-After" in error.headers()
        assert (made.requests, made.frames) == (0, 0)
        async with made.admit(1):
            assert (made.requests, made.frames) == (1, 1)

    run(test)


def test_by_frames_not_by_count_alone() -> None:
    async def test() -> None:
        made = admission()
        async with made.admit(60):
            error = await refused(made, 41)
            assert (error.status, error.type, error.code) == (503, "overloaded_error", "too_many_frames")
            assert "Retry-After" in error.headers()
            async with made.admit(40):
                assert made.frames == 100

    run(test)


def test_frames_may_be_known_later() -> None:
    async def test() -> None:
        made = admission()
        async with made.admit(50), made.admit() as second:
            with pytest.raises(ServeError) as caught:
                second.add_frames(51)
            assert caught.value.status == 503
            assert made.frames == 50
            second.add_frames(50)
            assert made.frames == 100
        assert made.frames == 0

    run(test)


def test_a_video_above_the_budget_is_let_in_alone() -> None:
    async def test() -> None:
        made = admission()
        async with made.admit(1):
            assert (await refused(made, 1000)).status == 503
        async with made.admit(1000):
            assert (await refused(made, 1)).status == 503
            async with made.admit(0):
                assert made.requests == 2, "a request without frames to decode is no burden"

    run(test)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, ServeError(400, "invalid_request_error", "no")])
def test_room_is_given_back_whatever_happens(error: type[BaseException] | BaseException) -> None:
    async def test() -> None:
        made = admission()
        with pytest.raises((ValueError, asyncio.CancelledError, ServeError)):
            async with made.admit(70):
                raise error
        assert (made.requests, made.frames) == (0, 0)

    run(test)


def test_the_time_to_come_back_follows_the_measured_rate() -> None:
    async def test() -> None:
        clock = Clock()
        made = admission(clock)
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(made.admit(20))
            assert (await refused(made)).retry_after == FIRST_RETRY_SECONDS, "nothing is known yet"
        made = admission(clock)
        await ended(made, clock, 8.0, 8.0)
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(made.admit(20))
            # 4 requests in hand of 8 s each: one ends every 2 s
            assert (await refused(made)).retry_after == pytest.approx(2.0)
        made = admission(clock)
        await ended(made, clock, 8.0)
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(made.admit(40))
            # 80 frames in hand in 8 s are 10 a second; 30 frames are too many
            assert (await refused(made, 50)).retry_after == pytest.approx(3.0)

    run(test)


def test_the_rate_forgets_and_failures_do_not_count() -> None:
    async def test() -> None:
        clock = Clock()
        made = admission(clock, waiting=1)

        async def retry_after() -> float:
            async with made.admit():
                return (await refused(made)).retry_after or 0.0

        await ended(made, clock, 10.0)
        with pytest.raises(ValueError, match="failed"):
            async with made.admit():
                raise ValueError("failed")
        async with made.admit():
            error = await refused(made)
            clock.seconds += 10.0
        assert error.retry_after == pytest.approx(10.0), "a request that failed at once says nothing of the rate"
        await ended(made, clock, *[4.0] * 60)
        assert await retry_after() == pytest.approx(4.0, abs=0.1)

    run(test)


@pytest.mark.parametrize(("seconds", "expected"), [(0.01, 1.0), (1e6, LONGEST_RETRY_SECONDS)])
def test_the_time_to_come_back_has_bounds(seconds: float, expected: float) -> None:
    async def test() -> None:
        clock = Clock()
        made = admission(clock, waiting=1)
        await ended(made, clock, seconds)
        async with made.admit():
            assert (await refused(made)).retry_after == expected

    run(test)
