"""A TCP server on loopback that answers a request's head with whatever a test wants, well-formed or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
"""(head of the request, where the answer goes)"""


@dataclass
class RawServer:
    """heads: of the requests so far. connections: that were opened. aborted: answers that the client broke off."""

    host: str
    port: int = 0
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    aborted: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def raw_server(
    answer: Answer | bytes, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    made = RawServer(host)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        with suppress(asyncio.IncompleteReadError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                made.heads.append(head)
                await (_send(writer, answer) if isinstance(answer, bytes) else answer(head, writer))
            except ConnectionError:
                made.aborted += 1
        writer.close()

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(content)
    await writer.drain()


def response(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """length: what is announced, the body's own if None."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str) -> bytes:
    return response(b"", f"Location: {location}", status="302 Found")
