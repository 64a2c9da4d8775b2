"""Requests that arrive slowly, break off, or are too much together. Pure ASGI: what a server would hand over is made here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cluenet.config.serve import ServeSection
from cluenet.serve import spool as spools
from cluenet.serve.api import build_app
from cluenet.serve.guard import FORM_BYTES, QUESTION_PATHS, Guard
from cluenet.serve.service import ServedModel, Service
from cluenet.serve.spool import LOCK, Spool

FORM = b'--x\r\nContent-Disposition: form-data; name="video"; filename="v"\r\n\r\n'
GONE = {"type": "http.disconnect"}


@pytest.fixture
def spool(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Spool:
    made = Spool(tmp_path)
    monkeypatch.setattr("cluenet.serve.fetch.process_spool", lambda: made)
    monkeypatch.setattr(spools, "process_spool", lambda: made)
    return made


@pytest.fixture
def guard(spool: Spool) -> Callable[..., Guard]:
    """The application with these limits; nothing is behind it."""

    def made(**limits: Any) -> Guard:
        section = ServeSection.model_validate({"limits": limits})
        app = build_app(Service(None, ServedModel("tiny", "f", "p", 0), section, node="here"))  # type: ignore[arg-type]
        assert isinstance(app, Guard)
        return app

    return made


class Client:
    """Sends pieces of a body and notes the answer. A piece: bytes, a message, or an event to wait for."""

    def __init__(
        self, *pieces: Any, path: str = "/v1/videoqa", kind: str = "multipart/form-data; boundary=x", more: bool = True
    ):
        self.pieces, self.more = list(pieces), more
        self.status, self.headers, self.body = 0, {}, b""
        headers = [(b"content-type", kind.encode())]
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": headers,
            "query_string": b"",
            "http_version": "1.1",
        }

    async def receive(self) -> dict[str, Any]:
        while self.pieces:
            piece = self.pieces.pop(0)
            if isinstance(piece, dict):
                return piece
            if isinstance(piece, bytes):
                return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or self.more}
            await piece.wait()
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")

    async def ask(self, app: Guard) -> Client:
        await app(self.scope, self.receive, self.send)
        return self


def running(app: Guard, *clients: Client) -> Sequence[Client]:
    async def test() -> Sequence[Client]:
        return await asyncio.gather(*(client.ask(app) for client in clients))

    return asyncio.run(test())


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/videoqa", "multipart/form-data; boundary=x"), ("/v1/chat/completions", "application/json")]
)
def test_a_body_that_never_ends_is_given_up(guard: Callable[..., Guard], spool: Spool, path: str, kind: str) -> None:
    app = guard(request_timeout_seconds=0.2)
    (client,) = running(app, Client(FORM, b"...", path=path, kind=kind))
    assert client.status == 408
    assert app.bodies.bytes == 0
    assert [file.name for file in spool.folder.iterdir()] == [LOCK]


@pytest.mark.parametrize("path", QUESTION_PATHS)
def test_a_question_that_is_too_many_is_sent_away_before_its_body_is_read(
    guard: Callable[..., Guard], path: str
) -> None:
    app, client = guard(max_waiting=1), Client(FORM, path=path)

    async def test() -> None:
        async with app.admission.admit():
            await client.ask(app)

    asyncio.run(test())
    assert (client.status, client.pieces) == (429, [FORM])
    assert int(client.headers[b"retry-after"]) >= 1
    counted = {"endpoint": path, "status": "429"}
    assert app.numbers.registry.get_sample_value("cluenet_requests_total", counted) == 1


@pytest.mark.parametrize(("path", "kind"), [("/v1/videoqa", "multipart/form-data; boundary=x"), ("/v1/videoqa", "application/json"),
                                            ("/v1/chat/completions", "application/json")])  # fmt: skip
def test_a_client_that_goes_away_is_no_error(
    guard: Callable[..., Guard], spool: Spool, path: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = guard()
    with caplog.at_level(logging.INFO):
        running(app, Client(FORM, b"...", GONE, path=path, kind=kind))
    assert caplog.records == []
    assert app.bodies.bytes == 0
    assert [file.name for file in spool.folder.iterdir()] == [LOCK]


def test_bodies_together_have_a_budget(guard: Callable[..., Guard]) -> None:
    async def test() -> None:
        app, first_may_end = guard(max_queued_bytes=1000), asyncio.Event()
        first = Client(bytes(900), first_may_end, b"{", kind="application/json", more=False)
        task = asyncio.create_task(first.ask(app))
        while app.bodies.bytes < 900:
            await asyncio.sleep(0)
        second = await Client(bytes(101), kind="application/json", more=False).ask(app)
        assert (second.status, b"retry-after" in second.headers) == (503, True)
        assert app.bodies.bytes == 900, "what was refused is not in hand"
        small = await Client(bytes(99), kind="application/json", more=False).ask(app)
        assert small.status == 422
        first_may_end.set()
        await task
        assert first.status == 422
        assert app.bodies.bytes == 0
        alone = await Client(bytes(2500), bytes(2500), kind="application/json", more=False).ask(app)
        assert alone.status == 422, "above the budget by itself, and alone"

    asyncio.run(test())


def test_one_body_has_a_limit_whatever_it_announces(guard: Callable[..., Guard]) -> None:
    given = 0

    class Endless(Client):
        async def receive(self) -> dict[str, Any]:
            nonlocal given
            given += 1
            return {"type": "http.request", "body": bytes(1 << 18), "more_body": True}

    app = guard(max_bytes=1000)
    (client,) = running(app, Endless(kind="application/json"))
    assert client.status == 413
    assert given == FORM_BYTES // (1 << 18) + 1
    assert app.bodies.bytes == 0
