"""A plain Hugging Face folder behind HTTP: what `cluenet serve HF_FOLDER` makes of it, and what it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cluenet.ask import ask
from cluenet.cli import call
from cluenet.serve.api import build_app
from cluenet.serve.arguments import AppArgs
from cluenet.serve.export import check
from helpers.checkpoints import small_checkpoint
from helpers.serving import OPTIONS, local_service, write_noise

QUESTION = "which one hits red ?"
FRAMES = 4


@pytest.fixture(scope="module", params=("qwen3_vl", "internvl"))
def args(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AppArgs:
    """Of the verb itself, up to where Ray would start."""
    folder = tmp_path_factory.mktemp(request.param)
    frames = ("data.sampler.name=uniform", f"data.sampler.frames={FRAMES}", "data.size.height=32", "data.size.width=32")
    settings = (f"runs={folder}", *frames, f"serve.allowed_roots=[{folder}]", "serve.model_name=base")
    exported = folder / "serve.yaml"
    assert call(["serve", str(small_checkpoint(request.param)), *settings, "--export", str(exported)]) == 0
    return check(exported).applications[0].args


@pytest.fixture(scope="module")
def client(args: AppArgs) -> TestClient:
    service = local_service(
        Path(args.model), name=args.serve.model_name, **args.serve.model_dump(exclude={"model_name"})
    )
    return TestClient(build_app(service))


@pytest.fixture(scope="module")
def video(args: AppArgs) -> Path:
    return write_noise(Path(args.serve.allowed_roots[0]) / "video.mp4")


def test_options_are_scored_as_ask_scores_them(client: TestClient, args: AppArgs, video: Path) -> None:
    body = {"question": QUESTION, "options": OPTIONS, "video_url": video.as_uri()}
    response = client.post("/v1/videoqa", json=body)
    assert response.status_code == 200, response.text
    found, wanted = response.json(), ask(args.model, video, QUESTION, OPTIONS)
    assert found["answer"] == wanted.answer
    assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-4)
    assert found["clues"] == []
    assert len(found["video"]["frame_seconds"]) == FRAMES


def test_an_open_question_is_written(client: TestClient, args: AppArgs, video: Path) -> None:
    url = {"type": "video_url", "video_url": {"url": video.as_uri()}}
    messages = [{"role": "user", "content": [url, {"type": "text", "text": QUESTION}]}]
    response = client.post("/v1/chat/completions", json={"model": "base", "messages": messages})
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == ask(args.model, video, QUESTION, ()).answer
