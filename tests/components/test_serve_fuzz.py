"""Whatever a client sends is answered, and never with an error of the server: requests made from the OpenAPI document and from
nothing, and damaged videos. The service, the engine and the decoding processes are the real ones, without Ray."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance
from starlette.testclient import TestClient

from cluenet.config.serve import ServeSection
from cluenet.decoding import encode_frames
from cluenet.errors import MediaError
from cluenet.isolation import IsolatedDecoder
from cluenet.serve.api import build_app
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import ClipRef, EncodedClip
from cluenet.serve.service import ServedModel, Service, Wish
from cluenet.serve.spool import LOCK, process_spool
from helpers.evaluation import model_folder, recipe
from helpers.serving import LocalBackend, write_noise

SHARED_FIXTURES = settings(suppress_health_check=list(HealthCheck), deadline=None)
FEW = settings(SHARED_FIXTURES, max_examples=25)
MANY = settings(SHARED_FIXTURES, max_examples=100)
REFUSALS = {400, 404, 405, 413, 415, 422}


class Backend(LocalBackend):
    """With one decoding process for all clips."""

    def __init__(self, model: Path, section: ServeSection):
        super().__init__(model, section)
        self.decoder = IsolatedDecoder(self.policy, timeout_seconds=20)

    async def decode(self, clip: ClipRef, content: bytes | None) -> EncodedClip | ServeError:
        return await asyncio.to_thread(self._decode, clip)

    def _decode(self, clip: ClipRef) -> EncodedClip | ServeError:
        (decoded,) = self.decoder.decode([(clip.path, None, ((clip.start_seconds, clip.end_seconds),))])
        (outcome,) = decoded.outcomes
        if isinstance(outcome, MediaError):
            return ServeError.of_media(outcome)
        return EncodedClip(encode_frames(outcome, self.policy.codec), str(decoded.reader), 0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def video(folder: Path) -> bytes:
    return write_noise(folder / "video.mp4").read_bytes()


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    model = model_folder(folder / "model", recipe=recipe())
    section = ServeSection.model_validate({"limits": {"max_question_chars": 500}})
    backend = Backend(model, section)
    yield Service(backend, ServedModel.of(model, "tiny"), section, node="here")
    assert left() == [], "of all these requests"
    backend.decoder.close()
    backend.engine.engine.close()


@pytest.fixture(scope="module")
def app(service: Service) -> Any:
    return build_app(service)


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app) as client:  # an exception that the application lets through fails the test
        yield client


def left() -> list[str]:
    """Videos in the spool."""
    return [file.name for file in process_spool().folder.iterdir() if file.name != LOCK]


def uri(content: bytes) -> str:
    return "data:video/mp4;base64," + base64.b64encode(content).decode()


def is_refusal(response: Any) -> bool:
    """In OpenAI's shape."""
    assert response.status_code in REFUSALS, f"{response.status_code}: {response.text[:500]}"
    return bool(response.json()["error"]["message"])


# ------------------------------------------------------------------------------------------- the OpenAPI document


def with_what_is_served(body: Any, good: str) -> Any:
    """Every second body gets a video that is one, and the model that is served: else no case would get far."""
    if not isinstance(body, dict) or len(str(body)) % 2:
        return body
    known = {"video_url": good, "model": "tiny"}
    return {**body, **{name: value for name, value in known.items() if name in body}}


@pytest.mark.parametrize(
    ("path", "mode"),
    [*((path, mode) for path in ("/v1/videoqa", "/v1/chat/completions") for mode in GenerationMode),
     *((path, GenerationMode.POSITIVE) for path in ("/v1/models", "/v1/models/{name}", "/health", "/metrics"))],
)  # fmt: skip
def test_requests_made_from_the_document(app: Any, video: bytes, path: str, mode: GenerationMode) -> None:
    """No status, header or body that the document does not have. A valid request may still be refused: for its video."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    schema.hook("map_body")(lambda context, body: with_what_is_served(body, uri(video)))
    (operation,) = schema[path].values()

    @FEW
    @given(case=operation.as_strategy(generation_mode=mode))
    def every(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    every()


# --------------------------------------------------------------------------------------------------- from nothing
ENDPOINTS = st.sampled_from(["/v1/videoqa", "/v1/chat/completions"])
TEXTS = st.text(st.characters(), max_size=40)  # all of Unicode, lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["question", "options", "video_url", "start_seconds", "end_seconds", "explain", "utilities", "model", "messages", "stream",
     "stream_options", "logprobs", "top_logprobs", "max_tokens", "n", "temperature"]
)  # fmt: skip


@MANY
@given(
    path=ENDPOINTS,
    body=st.binary(max_size=200),
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=x", "text/plain", "", "ü"]),
)
def test_bytes(client: TestClient, path: str, body: bytes, kind: str) -> None:
    assert is_refusal(client.post(path, content=body, headers={"content-type": kind.encode()}))


@MANY
@given(path=ENDPOINTS, body=JSON | st.dictionaries(FIELDS, JSON, max_size=6))
def test_json_of_any_shape(client: TestClient, path: str, body: Any) -> None:
    assert is_refusal(client.post(path, content=json.dumps(body), headers={"content-type": "application/json"}))


@MANY
@given(pieces=st.lists(st.sampled_from([b"--x\r\n", b"--x--\r\n", b"\r\n", b'Content-Disposition: form-data; name="video"; filename="v"\r\n',
                                        b'Content-Disposition: form-data; name="question"\r\n', b"Content-Type: a\r\n", b"why ?", b"\xff", b'name="', b":"]), max_size=14))  # fmt: skip
def test_forms_of_any_shape(client: TestClient, pieces: list[bytes]) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert is_refusal(client.post("/v1/videoqa", content=b"".join(pieces), headers=headers))


@FEW
@given(
    question=TEXTS, options=st.lists(TEXTS, max_size=4), times=st.lists(st.floats(), max_size=2), explain=st.booleans(), utilities=st.booleans()
)  # fmt: skip
def test_any_words_and_times_about_a_real_video(
    client: TestClient,
    video: bytes,
    question: str,
    options: list[str],
    times: list[float],
    explain: bool,
    utilities: bool,
) -> None:
    clip = dict(zip(("start_seconds", "end_seconds"), times))
    body = {
        "question": question,
        "options": options,
        "video_url": uri(video),
        "explain": explain,
        "utilities": utilities,
        **clip,
    }
    response = client.post("/v1/videoqa", content=json.dumps(body), headers={"content-type": "application/json"})
    if response.status_code == 200:
        assert (response.json()["clues"] is None) == (not explain)
    else:
        assert is_refusal(response)


def test_such_questions_are_also_answered(client: TestClient, video: bytes) -> None:
    """Guards the test above, which a service that refuses everything would pass."""
    body = {"question": "\u0000 ü 🎬 ?", "options": ["a", "b"], "video_url": uri(video), "start_seconds": 0.5}
    assert client.post("/v1/videoqa", json=body).status_code == 200


@FEW
@given(data=st.data())
def test_damaged_videos(client: TestClient, video: bytes, data: st.DataObject) -> None:
    content = bytearray(video)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    response = client.post("/v1/videoqa", data={"question": "why ?"}, files={"video": bytes(content)})
    assert response.status_code == 200 or is_refusal(response)


# ---------------------------------------------------------------------------------------------- nothing is left


def test_a_request_that_is_cancelled_leaves_nothing(
    service: Service, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client went away while the model was busy."""
    asked = asyncio.Event()

    async def busy(*_: Any) -> Any:
        asked.set()
        await asyncio.sleep(3600)

    async def test() -> None:
        wish = Wish("id", functools.partial(service.fetcher.fetch, uri(video)), "why ?")
        task = asyncio.create_task(service.answer(wish))
        await asked.wait()
        assert len(left()) == 1
        assert (service.admission.requests, service.admission.frames) == (1, 16)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (service.admission.requests, service.admission.frames) == (0, 0)

    monkeypatch.setattr(service.backend, "ask", busy)
    asyncio.run(test())
    assert left() == []


# ------------------------------------------------------------------------------------------------------- the logs


def test_logs_have_nothing_of_a_request_but_its_id(
    client: TestClient,
    service: Service,
    video: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever becomes of it: answered, refused, or an error of ours whose message has the question in it."""
    secret = "s3cr3t"
    ask = functools.partial(client.post, "/v1/videoqa")
    asked = {"question": f"{secret} ?", "options": [secret, "b"]}

    async def fails(asked: Any, frames: Any) -> Any:
        raise ValueError(asked.question)

    with caplog.at_level(logging.DEBUG):
        assert ask(json={**asked, "video_url": uri(video)}).status_code == 200
        assert ask(json={**asked, "video_url": f"https://{secret}.invalid/{secret}"}).status_code == 400
        assert ask(json={**asked, "video_url": f"file:///{secret}"}).status_code == 400
        assert ask(json={**asked, secret: secret}).status_code == 422
        assert ask(data=asked, files={"video": (secret, video[:500])}).status_code == 400
        monkeypatch.setattr(service.backend, "ask", fails)
        failed = ask(json={**asked, "video_url": uri(video)})
    ours = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]  # the client's own
    assert failed.status_code == 500
    assert secret not in failed.text
    assert failed.headers["x-request-id"] in caplog.text
    assert not any(secret in record.getMessage() or secret in str(record.exc_info) for record in ours)
