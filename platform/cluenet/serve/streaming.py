"""Answers as server-sent events, as OpenAI's API sends them: `data: {chunk}` for every piece, at last `data: [DONE]`.

An error after the first piece is an event too, `data: {"error": {...}}`: the status has been sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from cluenet.serve import chat
from cluenet.serve.errors import ServeError
from cluenet.serve.protocol import ChatRequest
from cluenet.serve.service import Outcome, ServedModel

Item = TypeVar("Item")


async def piped(items: AsyncIterator[Item]) -> AsyncIterator[Item]:
    """The same items, made in a task of their own: the web framework pulls the first and the others from different tasks,
    and a time limit belongs to one."""
    queue: asyncio.Queue[tuple[Item | None, BaseException | None]] = asyncio.Queue(maxsize=64)
    task = asyncio.create_task(_pump(items, queue))
    try:
        while True:
            item, error = await queue.get()
            if isinstance(error, StopAsyncIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        task.cancel()


async def _pump(items: AsyncIterator[Item], queue: asyncio.Queue[Any]) -> None:
    end: BaseException = StopAsyncIteration()
    try:
        async with aclosing(items):  # type: ignore[type-var]
            async for item in items:
                await queue.put((item, None))
    except Exception as error:
        end = error
    await queue.put((None, end))


async def events(
    request: ChatRequest, id_: str, created: int, model: ServedModel, first: str | Outcome, rest: AsyncIterator[str | Outcome]
) -> AsyncIterator[str]:  # fmt: skip
    """The body of a streamed completion."""
    head = {"id": id_, "object": "chat.completion.chunk", "created": created, "model": model.name,
            "system_fingerprint": model.fingerprint}  # fmt: skip
    yield _event({**head, "choices": [_choice({"role": "assistant", "content": ""})]})
    try:
        async with aclosing(rest):  # type: ignore[type-var]
            async for item in _chained(first, rest):
                for chunk in _chunks(request, id_, item, model):
                    yield _event({**head, **chunk})
    except ServeError as error:
        yield _event(error.body())
        return
    except Exception:  # the status has been sent: the client learns it here, the log from where it was raised
        yield _event(
            ServeError(500, "server_error", f"the answer cannot go on; the server's log has more about {id_}").body()
        )
        raise
    yield "data: [DONE]\n\n"


async def _chained(first: Item, rest: AsyncIterator[Item]) -> AsyncIterator[Item]:
    yield first
    async for item in rest:
        yield item


def _chunks(request: ChatRequest, id_: str, item: str | Outcome, model: ServedModel) -> list[dict[str, Any]]:
    if isinstance(item, str):
        return [{"choices": [_choice({"content": item})]}]
    found: list[dict[str, Any]] = []
    if item.reply.index is not None:
        values = chat.logprobs(request, item)
        found.append({"choices": [_choice({"content": chat.content_of(item)}, values and values.model_dump())]})
    evidence = chat.evidence(id_, item, model).model_dump()
    found.append({"choices": [_choice({}, finish=chat.finish_reason(item))], "cluenet": evidence})
    if request.stream_options is not None and request.stream_options.include_usage:
        found.append({"choices": [], "usage": chat.usage(item).model_dump()})
    return found


def _choice(delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
