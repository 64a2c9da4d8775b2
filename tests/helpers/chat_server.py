"""A server on loopback that speaks the chat-completions protocol, so that a teacher can be tested without a network."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Any]
"""(status, headers, body: text as it is, anything else as JSON)"""


@dataclass
class ChatServer:
    """`respond` maps a request's body to an answer and may be replaced at any time; every request is kept."""

    respond: Callable[[dict[str, Any]], Answer]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["wise-vl"])
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.respond(body)
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def chat_server(respond: Callable[[dict[str, Any]], Answer]) -> Iterator[ChatServer]:
    chat = ChatServer(respond)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(*(chat.answer(body, headers) if self.path == "/v1/chat/completions" else error(404)))

        def do_GET(self) -> None:
            found = {"object": "list", "data": [{"id": name, "object": "model"} for name in chat.models]}
            self._send(*((200, {}, found) if self.path == "/v1/models" else error(404)))

        def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away is no news
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str | None, logprobs: list[tuple[str, dict[str, float]]] | None = None) -> Answer:
    """A reply; `logprobs`: for each of its tokens the token and the listed alternatives."""
    told = None
    if logprobs is not None:
        told = {"content": [_token(token, listed) for token, listed in logprobs]}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": told, "message": {"role": "assistant", "content": text}}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "wise-vl", "choices": [choice]}
    return 200, {}, body


def _token(token: str, listed: dict[str, float]) -> dict[str, Any]:
    others = [{"token": name, "logprob": value, "bytes": None} for name, value in listed.items()]
    return {"token": token, "logprob": listed.get(token, -1.0), "bytes": None, "top_logprobs": others}


def error(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Answer:
    return status, headers or {}, {"error": {"message": message, "type": "error", "code": None, "param": None}}


def text_of(body: dict[str, Any]) -> str:
    """What a request says, without its images."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def asks_for_clues(body: dict[str, Any]) -> bool:
    return not isinstance(body["messages"][-1]["content"], str)


def proposal(text: str, start: float = 0.25, end: float = 0.75, **more: Any) -> str:
    clue = {"text": text, "start_seconds": start, "end_seconds": end, "concepts": {"who": "it", "what": "moves"}}
    return json.dumps({"clues": [clue], "chain": "it moves, so it is so", **more})


def wise(body: dict[str, Any]) -> Answer:
    """Proposes the clue that the question names as `[clue: ...]`; believes in option B once it knows `points to B`."""
    text = text_of(body)
    if asks_for_clues(body):
        named = re.search(r"\[clue: (.*?)\]", text)
        return completion(proposal(named[1] if named else "nothing much"))
    letter, sure = ("B", -0.1) if "points to B" in text.split("Question:")[0] else ("A", -0.6)
    listed = {letter: sure, **{other: -2.5 for other in "ABC" if other != letter}}
    return completion(letter, [(letter, listed)] if body.get("logprobs") else None)
