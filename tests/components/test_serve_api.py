"""The endpoint's routes with the real tiny model and real small videos, without Ray."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cluenet.ask import ask
from cluenet.serve.api import build_app
from cluenet.serve.service import Service
from helpers.evaluation import model_folder, recipe
from helpers.serving import OPTIONS, local_service, write_noise

QUESTION = "which one hits red ?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return model_folder(folder / "model", recipe=recipe())


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    return write_noise(folder / "video.mp4")


@pytest.fixture(scope="module")
def service(model: Path, folder: Path) -> Service:
    return local_service(model, allowed_roots=[str(folder)])


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(build_app(service), raise_server_exceptions=False) as client:
        yield client


def upload(client: TestClient, video: Path, **fields) -> dict:
    form = {"question": QUESTION, "options": list(OPTIONS), **fields}
    response = client.post("/v1/videoqa", data=form, files={"video": ("v.mp4", video.read_bytes(), "video/mp4")})
    assert response.status_code == 200, response.text
    return response.json()


def test_an_upload_is_answered_as_ask_answers(client: TestClient, model: Path, video: Path) -> None:
    found, wanted = upload(client, video), ask(model, video, QUESTION, OPTIONS)
    assert (found["answer"], found["index"]) == (wanted.answer, wanted.index)
    assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-4)
    stated = [one for one in found["clues"] if one["kept"]]
    assert [one["text"] for one in stated] == [one["text"] for one in wanted.clues]
    assert found["video"]["frame_seconds"] == pytest.approx(wanted.frame_seconds, abs=1e-5)
    assert found["usage"]["visual_tokens"] > 0
    assert set(found["seconds"]) == {"fetch", "decode", "wait", "watch", "answer", "total"}
    assert found["model"] == "tiny"


def test_every_way_to_send_a_video_is_the_same_clip(client: TestClient, service: Service, video: Path) -> None:
    first = upload(client, video)
    for url in (video.as_uri(), "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()):
        body = {"question": QUESTION, "options": OPTIONS, "video_url": url}
        again = client.post("/v1/videoqa", json=body).json()
        assert again["cached"] == {"frames": True, "clip": True}
        assert again["probabilities"] == pytest.approx(first["probabilities"], abs=1e-5)
    assert len(set(service.backend.decoded)) == len(service.backend.decoded) == 1


def test_utilities_and_explanations_are_optional(client: TestClient, video: Path) -> None:
    measured = upload(client, video, utilities="true")["clues"]
    assert measured
    assert all(isinstance(one["utility"], float) for one in measured)
    assert all(one["utility"] is None for one in upload(client, video)["clues"])
    plain = upload(client, video, explain="false")
    assert plain["clues"] is None
    assert plain["chain"] is None


def test_a_part_of_the_video_is_a_clip_of_its_own(client: TestClient, video: Path) -> None:
    found = upload(client, video, start_seconds="0.5", end_seconds="1.5")
    assert found["video"]["start_seconds"] == 0.5
    assert found["video"]["end_seconds"] == pytest.approx(1.5)
    assert all(0.5 <= seconds <= 1.5 for seconds in found["video"]["frame_seconds"])


def completion(client: TestClient, video: Path, text: str, **fields):
    content = [{"type": "text", "text": text}, {"type": "video_url", "video_url": {"url": video.as_uri()}}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}
    return client.post("/v1/chat/completions", json=body)


def test_options_in_a_chat_are_scored_by_letters(client: TestClient, video: Path) -> None:
    plain = upload(client, video)
    found = completion(client, video, f"{QUESTION}\nA. red\nB. blue\nC. green", logprobs=True, top_logprobs=2).json()
    choice = found["choices"][0]
    assert choice["message"]["content"] == "ABC"[plain["index"]]
    (token,) = choice["logprobs"]["content"]
    assert token["token"] == choice["message"]["content"]
    assert len(token["top_logprobs"]) == 2
    assert token["top_logprobs"][0]["logprob"] == token["logprob"]
    assert found["cluenet"]["probabilities"] == pytest.approx(plain["probabilities"], abs=1e-4)
    usage = found["usage"]
    assert usage["prompt_tokens_details"]["visual_tokens"] == plain["usage"]["visual_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_earlier_turns_are_part_of_the_question(client: TestClient, service: Service, video: Path) -> None:
    url = {"type": "video_url", "video_url": {"url": video.as_uri()}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "what is seen ?"}, url]},
        {"role": "assistant", "content": "red hits blue"},
        {"role": "user", "content": "why ?\n(A) red (B) blue"},
    ]
    response = client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages})
    assert response.status_code == 200, response.text
    asked = service.backend.asked[-1]
    assert asked.question == "user: what is seen ?\nassistant: red hits blue\nuser: why ?"
    assert asked.options == ("red", "blue")


def chunks(response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_streams_say_the_same_as_whole_replies(client: TestClient, video: Path) -> None:
    text = f"{QUESTION} (A) red (B) blue"
    whole = completion(client, video, text, logprobs=True).json()
    found = chunks(completion(client, video, text, logprobs=True, stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(one["choices"][0]["delta"].get("content", "") for one in found[:-1])
        == whole["choices"][0]["message"]["content"]
    )
    assert [one["choices"][0]["finish_reason"] for one in found[:-1]] == [None, None, "stop"]
    assert found[-2]["cluenet"]["probabilities"] == pytest.approx(whole["cluenet"]["probabilities"], abs=1e-5)
    assert found[-1]["usage"] == {**whole["usage"]}
    assert found[1]["choices"][0]["logprobs"]["content"][0]["logprob"] == pytest.approx(
        whole["choices"][0]["logprobs"]["content"][0]["logprob"], abs=1e-5
    )


def test_models_health_metrics(client: TestClient, service: Service, video: Path) -> None:
    upload(client, video)
    (card,) = client.get("/v1/models").json()["data"]
    assert (card["id"], card["fingerprint"]) == ("tiny", service.model.fingerprint)
    assert client.get("/v1/models/tiny").json() == card
    assert client.get("/health").json()["status"] == "ok"
    text = client.get("/metrics").text
    for name in (
        "cluenet_engine_seconds_bucket",
        "cluenet_visual_tokens_total",
        "cluenet_engine_batch_questions_count",
    ):
        assert f"{name}{{" in text
    assert 'deployment="Engine"' in text


def test_errors_have_the_shape_of_openai(client: TestClient, video: Path) -> None:
    cases = [
        (client.get("/nowhere"), 404), (client.get("/v1/videoqa"), 405), (client.post("/v1/videoqa", json={}), 422),
        (client.post("/v1/videoqa", content=b"x", headers={"content-type": "text/plain"}), 415),
        (client.post("/v1/videoqa", json={"question": "why ?"}), 400),
        (client.post("/v1/videoqa", json={"question": "why ?", "video_url": "x", "nonsense": 1}), 422),
        (client.post("/v1/videoqa", data={"question": "why ?", "options": ["a", "b"]}, files={"other": b"x"}), 422),
        (client.post("/v1/videoqa", data={"question": "why ?"}, files={"video": b"no video at all"}), 400),
        (client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}), 422),
        (completion(client, video, "why ?", temperature=0.7), 400), (completion(client, video, "why ?", logprobs=True), 400),
        (completion(client, video, "why ?", model="other"), 404), (completion(client, video, "x" * 5000), 413),
    ]  # fmt: skip
    for response, status in cases:
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert response.headers["x-request-id"].startswith("req-")


def test_the_document_describes_both_ways_to_ask(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/v1/videoqa"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "video" in body["multipart/form-data"]["schema"]["properties"]
    assert "requestBody" in paths["/v1/chat/completions"]["post"]
    assert "429" in paths["/v1/videoqa"]["post"]["responses"]


def test_keys_are_asked_for_everywhere_but_at_the_page(service: Service) -> None:
    client = TestClient(build_app(service, keys=("secret", "other")))
    for path in ("/v1/models", "/metrics", "/v1/videoqa"):
        assert client.get(path).status_code == 401
    assert client.get("/v1/models", headers={"authorization": "Bearer other"}).status_code == 200
    assert client.get("/health").status_code == 200


def test_large_bodies_are_refused_before_they_are_read(model: Path) -> None:
    small = local_service(model, limits={"max_bytes": 1000})
    client = TestClient(build_app(small))
    assert client.post("/v1/videoqa", content=b"x" * (2 << 20)).status_code == 413
    streamed = client.post(
        "/v1/videoqa", content=iter([b"x" * (1 << 20)] * 3), headers={"content-type": "application/json"}
    )
    assert streamed.status_code == 413


def test_the_page_is_served_with_nothing_from_elsewhere(service: Service) -> None:
    client = TestClient(build_app(service, keys=("secret",)))
    for path, kind in (("/", "text/html"), ("/static/app.js", "text/javascript"), ("/static/style.css", "text/css")):
        response = client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
    for path in ("/static/protocol.py", "/static/..%2Fapi.py", "/static/"):
        assert client.get(path).status_code == 404


def test_browsers_of_other_origins_are_let_in_only_where_they_are_named(model: Path) -> None:
    closed = TestClient(build_app(local_service(model)))
    opened = TestClient(build_app(local_service(model, cors_origins=["https://a.example"]), keys=("secret",)))
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in closed.options("/v1/videoqa", headers=asked).headers
    assert opened.options("/v1/videoqa", headers=asked).headers["access-control-allow-origin"] == "https://a.example"
    other = opened.options("/v1/videoqa", headers={**asked, "origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


def test_models_refuse_questions_that_they_have_no_letters_for(client: TestClient, video: Path) -> None:
    body = {"question": QUESTION, "options": [f"option {n}" for n in range(27)], "video_url": video.as_uri()}
    response = client.post("/v1/videoqa", json=body)
    assert response.status_code == 400
    assert "27 options" in response.json()["error"]["message"]
