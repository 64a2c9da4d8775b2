"""Engines that take as long as a question says: "sleep 2" takes 2 s, and a stream begins before it sleeps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from cluenet.config.serve import ServeSection
from cluenet.serve.engine_deployment import EngineReplica
from cluenet.serve.messages import Asked, ClipFacts, EncodedClip, EngineReply, Reply
from cluenet.serve.metrics import Family, replica_id


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


class OnlySleeps:
    """An engine without a model, which gives one answer to everything."""

    def __init__(self, model: str, section: ServeSection):
        self.facts = ClipFacts((0.0,), 1.0, "none")

    async def ask(self, asked: Asked, clip: EncodedClip | None = None) -> EngineReply:
        await asyncio.sleep(_seconds(asked))
        usage = dict.fromkeys(("visual_tokens", "prompt_tokens", "completion_tokens", "total_tokens"), 0)
        seconds = dict.fromkeys(("wait", "watch", "answer"), 0.0)
        return Reply("yes", None, (), (), None, self.facts, {"frames": True, "clip": True}, seconds, usage)

    def metrics(self) -> tuple[str, list[Family]]:
        return replica_id(), []


def _seconds(asked: Asked) -> float:
    found = re.search(r"sleep ([\d.]+)", asked.question)
    return float(found[1]) if found else 0.0
