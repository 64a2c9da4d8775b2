"""What stands before every route: an id, the key, room for a question, size and time of the body, and an end to every error. Pure
ASGI.

Nothing of a request is logged but its id: of an error that nobody expected the log gets its type and where it was raised.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluenet.config.serve import Limits
from cluenet.serve import auth
from cluenet.serve.admission import Admission, BodyBudget
from cluenet.serve.errors import ServeError
from cluenet.serve.metrics import IngressMetrics

OPEN_PATHS = ("/", "/health", "/openapi.json")
"""Without a key: the page itself, and what a load balancer asks."""
QUESTION_PATHS = ("/v1/videoqa", "/v1/chat/completions")
"""Refused before their bodies are read where no question is let in."""
FORM_BYTES = 1 << 20
"""Of a body besides its video: question, options, boundaries."""
logger = logging.getLogger("ray.serve")


class Guard:
    """Around an application. keys: bearer keys; empty: none is needed."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], limits: Limits, numbers: IngressMetrics, admission: Admission
    ):  # fmt: skip
        self.app, self.keys, self.numbers, self.admission = app, tuple(keys), numbers, admission
        self.max_bytes = limits.max_bytes * 4 // 3 + FORM_BYTES  # base64 in a data: URI takes 4 characters for 3 bytes
        self.seconds, self.bodies = limits.request_timeout_seconds, BodyBudget(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        one = _Exchange(scope, receive, send, self)
        self.numbers.running.inc()
        try:
            self._check(scope)
            await self.app(scope, one.receive, one.send)
        except ServeError as error:
            await one.end(error)
        except ClientDisconnect:
            pass  # in the middle of its request: nobody is left to be told
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s: %s\n%s", one.id, type(error).__name__, where)
            await one.end(ServeError(500, "server_error", f"an error of the server; its log has more about {one.id}"))
        finally:
            self.bodies.give_back(one.received)
            self.numbers.running.dec()
            self.numbers.requests.labels(_endpoint(scope), one.status or 499).inc()  # 499: the client went away

    def _check(self, scope: Scope) -> None:
        path, headers = scope["path"], Headers(scope=scope)
        preflight = scope["method"] == "OPTIONS"  # browsers send no key with it
        if self.keys and not preflight and path not in OPEN_PATHS and not path.startswith("/static/"):
            auth.check(headers.get("authorization"), self.keys)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.max_bytes:
            raise _too_large(self.max_bytes)
        if scope["method"] == "POST" and path in QUESTION_PATHS:
            self.admission.check()


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: Guard):
        self.id, self.status, self.received = f"req-{uuid.uuid4().hex}", 0, 0
        self._scope, self._receive, self._send, self._guard = scope, receive, send, guard
        self._started, self._whole = time.monotonic(), False

    async def receive(self) -> Message:
        try:
            return await self._piece()
        except ServeError as error:  # as the one that the framework lets through
            raise HTTPException(error.status, error.message, error.headers()) from None

    async def _piece(self) -> Message:
        if self._whole:  # what comes now is that the client goes away
            return await self._receive()
        try:
            async with asyncio.timeout(self._started + self._guard.seconds - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            text = f"the request did not arrive within {self._guard.seconds:g} s"
            raise ServeError(408, "timeout_error", text, code="request_timeout") from None
        self._count(len(message.get("body", b"")))
        self._whole = not message.get("more_body", False)
        return message

    def _count(self, size: int) -> None:
        self._guard.bodies.add(size, own=self.received)
        self.received += size
        if self.received > self._guard.max_bytes:
            raise _too_large(self._guard.max_bytes)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.id
        await self._send(message)

    async def end(self, error: ServeError) -> None:
        """With this error, where no response has begun."""
        if not self.status:
            response = JSONResponse(error.body(), status_code=error.status, headers=error.headers())
            await response(self._scope, self._receive, self.send)


def _endpoint(scope: Scope) -> str:
    path = scope["path"]
    return getattr(scope.get("route"), "path", path if path in QUESTION_PATHS else "other")


def _too_large(most: int) -> ServeError:
    message = f"the request is larger than the {most} bytes that are accepted (serve.limits.max_bytes)"
    return ServeError(413, "invalid_request_error", message, code="request_too_large")
