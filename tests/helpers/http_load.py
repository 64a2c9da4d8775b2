"""A light HTTP client in a process of its own, so that what it costs is counted apart from the server it asks.

`http_load` starts this file as a program, which reads a `Load` as JSON and writes a `Found`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp

SECONDS = 600.0


@dataclass(frozen=True)
class Load:
    """Bodies that are posted to `url`: by so many clients, each its next one when it is answered; or, with `rate`, so many per
    second at even distances, whether others are answered or not."""

    url: str
    bodies: Sequence[dict[str, Any]]
    clients: int = 1
    rate: float | None = None


@dataclass(frozen=True)
class Found:
    """seconds: until the last answer. answers: (status, seconds) of every request. processor_seconds: of this client."""

    seconds: float
    answers: list[tuple[int, float]]
    processor_seconds: float

    def count(self, status: int) -> int:
        return sum(one == status for one, _ in self.answers)

    @property
    def latencies(self) -> list[float]:
        return [seconds for _, seconds in self.answers]


def http_load(load: Load) -> Found:
    """Raises CalledProcessError where a request has no answer at all."""
    command = [sys.executable, __file__]
    result = subprocess.run(command, input=json.dumps(asdict(load)), stdout=subprocess.PIPE, text=True, check=True)
    return Found(**json.loads(result.stdout))


async def _run(load: Load) -> Found:
    answers: list[tuple[int, float]] = []
    timeout, connector = aiohttp.ClientTimeout(SECONDS), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        started, before = time.perf_counter(), time.process_time()

        async def ask(body: bytes) -> None:
            asked = time.perf_counter()
            async with session.post(load.url, data=body, headers={"Content-Type": "application/json"}) as response:
                await response.read()
                answers.append((response.status, time.perf_counter() - asked))

        bodies = [json.dumps(body).encode() for body in load.bodies]
        await (_by_clients(ask, bodies, load.clients) if load.rate is None else _by_rate(ask, bodies, load.rate))
        return Found(time.perf_counter() - started, answers, time.process_time() - before)


async def _by_clients(ask: Any, bodies: Sequence[bytes], clients: int) -> None:
    waiting = list(reversed(bodies))

    async def client() -> None:
        while waiting:
            await ask(waiting.pop())

    await asyncio.gather(*(client() for _ in range(clients)))


async def _by_rate(ask: Any, bodies: Sequence[bytes], rate: float) -> None:
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for place, body in enumerate(bodies):
            await asyncio.sleep(max(0.0, started + place / rate - time.perf_counter()))
            group.create_task(ask(body))


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_run(Load(**json.load(sys.stdin)))))))
