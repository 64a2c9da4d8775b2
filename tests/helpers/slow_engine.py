"""Engines that take as long as a question says: "sleep 2" takes 2 s, and a stream begins before it sleeps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from cluenet.serve.engine_deployment import EngineReplica
from cluenet.serve.messages import Asked, EncodedClip, EngineReply


class SlowEngine(EngineReplica):
    async def ask(self, asked: Asked, clip: EncodedClip | None = None) -> EngineReply:
        await asyncio.sleep(_seconds(asked))
        return await super().ask(asked, clip)

    async def stream(self, asked: Asked, clip: EncodedClip | None = None) -> AsyncIterator[str | EngineReply]:
        if seconds := _seconds(asked):
            yield "so"
            await asyncio.sleep(seconds)
        async for item in super().stream(asked, clip):
            yield item


def _seconds(asked: Asked) -> float:
    found = re.search(r"sleep ([\d.]+)", asked.question)
    return float(found[1]) if found else 0.0
