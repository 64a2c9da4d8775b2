"""What stands before every route: an id, the key, the size of the body, and an end to every error. Pure ASGI.

Nothing of a request is logged but its id: of an error that nobody expected the log gets its type and where it was raised.
"""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluenet.serve import auth
from cluenet.serve.errors import ServeError
from cluenet.serve.metrics import IngressMetrics

OPEN_PATHS = ("/", "/health", "/openapi.json")
"""Without a key: the page itself, and what a load balancer asks."""
FORM_BYTES = 1 << 20
"""Of a body besides its video: question, options, boundaries."""
logger = logging.getLogger("ray.serve")


class Guard:
    """Around an application. keys: bearer keys; empty: none is needed. max_bytes: of a video."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], max_bytes: int, numbers: IngressMetrics):
        self.app, self.keys, self.numbers = app, tuple(keys), numbers
        self.max_bytes = max_bytes * 4 // 3 + FORM_BYTES  # base64 in a data: URI takes 4 characters for 3 bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        one = _Exchange(scope, receive, send, self.max_bytes)
        self.numbers.running.inc()
        try:
            self._check(scope)
            await self.app(scope, one.receive, one.send)
        except ServeError as error:
            await one.end(error)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s: %s\n%s", one.id, type(error).__name__, where)
            await one.end(ServeError(500, "server_error", f"an error of the server; its log has more about {one.id}"))
        finally:
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


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int):
        self.id, self.status, self.received = f"req-{uuid.uuid4().hex}", 0, 0
        self._scope, self._receive, self._send, self._max_bytes = scope, receive, send, max_bytes

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if self.received > self._max_bytes:
            error = _too_large(self._max_bytes)
            raise HTTPException(error.status, error.message)  # the one that the framework lets through
        return message

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
    route = scope.get("route")
    return getattr(route, "path", "other")


def _too_large(most: int) -> ServeError:
    message = f"the request is larger than the {most} bytes that are accepted (serve.limits.max_bytes)"
    return ServeError(413, "invalid_request_error", message, code="request_too_large")
