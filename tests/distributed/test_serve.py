"""The endpoint on Ray Serve, asked over HTTP: by the official client, on several replicas, while they die, grow and are
replaced."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
import ray
from ray import serve

from cluenet.serve import launch
from cluenet.serve.app import application
from cluenet.serve.arguments import APP, AppArgs
from helpers.evaluation import model_folder, recipe
from helpers.serving import OPTIONS, SMALL, engines, free_port, numbers, replicas, write_noise
from helpers.slow_engine import SlowEngine

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]
SECONDS = 120.0


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
def port(ray_session: None) -> Iterator[int]:
    yield free_port()
    serve.shutdown()


Deploy = Callable[..., str]


@pytest.fixture(scope="module")
def deploy(model: Path, folder: Path, port: int) -> Deploy:
    now: list[tuple] = []  # starting replicas takes longer than anything else here

    def deployed(replica: type | None = None, **section) -> str:
        url = f"http://127.0.0.1:{port}"
        if now == [(replica, section)]:
            return url
        now[:] = [(replica, section)]
        values = {"port": port, "model_name": "tiny", "allowed_roots": [str(folder)], **SMALL, **section}
        args = AppArgs(model=str(model), serve=values)
        if replica is None:
            launch.start(args)
        else:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(application(args, replica), name=APP, route_prefix="/")
        return url

    return deployed


def ask(url: str, video: Path, question: str = "which one hits red ?", **fields) -> httpx2.Response:
    body = {"question": question, "options": list(OPTIONS), "video_url": video.as_uri(), **fields}
    return httpx2.post(f"{url}/v1/videoqa", json=body, timeout=SECONDS)


def eventually(holds: Callable[[], bool], seconds: float = SECONDS) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.5)
    return False


# ------------------------------------------------------------------------------------------------- the client


def messages(video: Path, text: str) -> list[dict]:
    url = {"type": "video_url", "video_url": {"url": video.as_uri()}}
    return [{"role": "user", "content": [url, {"type": "text", "text": text}]}]


def test_the_official_client_is_answered(deploy: Deploy, video: Path) -> None:
    url = deploy(**engines(2))
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=SECONDS)
    assert [one.id for one in client.models.list()] == ["tiny"]
    text = "which one hits red ?\nA. red\nB. blue\nC. green"
    whole = client.chat.completions.create(model="tiny", messages=messages(video, text), logprobs=True, top_logprobs=3)
    content = whole.choices[0].message.content
    assert content in "ABC"
    assert whole.usage.prompt_tokens_details.model_extra["visual_tokens"] > 0
    assert whole.model_extra["cluenet"]["clues"]
    tops = whole.choices[0].logprobs.content[0].top_logprobs
    assert sorted(one.token for one in tops) == ["A", "B", "C"]
    stream = client.chat.completions.create(
        model="tiny", messages=messages(video, text), stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == content
    assert pieces[-1].usage.total_tokens == whole.usage.total_tokens
    open_answer = client.chat.completions.create(model="tiny", messages=messages(video, "why ?"), max_tokens=3)
    assert open_answer.usage.completion_tokens <= 3
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="other", messages=messages(video, text))
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "no video"}])


# ------------------------------------------------------------------------------------------------ one clip, one replica


def built(url: str) -> dict[str, float]:
    """Looks for a clip that did not find it, by replica: what each has watched."""
    return {one: count for one, count in numbers(url, "cluenet_cache", cache="clips", what="misses").items() if count}


def test_questions_about_one_clip_build_one_prefix_and_move_when_its_replica_dies(deploy: Deploy, folder: Path) -> None:
    url, video = deploy(**engines(2)), write_noise(folder / "one.mp4", 1)
    before = built(url)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: ask(url, video, f"which one hits red {n} ?"), range(20)))
    assert [one.status_code for one in found] == [200] * 20
    ((home, count),) = [(one, n - before.get(one, 0)) for one, n in built(url).items() if n != before.get(one, 0)]
    assert count == 1
    ray.kill(replicas("Engine")[home])
    again = ask(url, video)
    assert again.status_code == 200
    assert again.json()["cached"] == {"frames": False, "clip": False}
    assert ask(url, video).json()["cached"]["clip"]
    assert home not in built(url)


def test_nothing_of_a_request_is_in_the_logs(deploy: Deploy, video: Path) -> None:
    url = deploy(**engines(2))
    ask(url, video, "which secretword hits red ?")
    ask(url, video, "which secretword ?", options=["one"])
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert any("Ingress" in path.name for path in files)
    assert not [path.name for path in files if "secretword" in path.read_text(errors="ignore")]
    assert json.loads(ask(url, video, "why ?", options=["one"]).text)["error"]["type"] == "invalid_request_error"


def test_a_rolling_update_drops_no_request(deploy: Deploy, video: Path) -> None:
    url = deploy(**engines(2))
    stopped, seen = threading.Event(), []

    def load() -> None:
        while not stopped.is_set():
            response = ask(url, video)
            seen.append((response.status_code, response.json().get("model")))

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(load) for _ in range(2)]
        deploy(**engines(2), model_name="newer")
        assert eventually(lambda: seen[-1:] == [(200, "newer")])
        stopped.set()
        for one in running:
            one.result()
    assert {status for status, _ in seen} == {200}
    assert {name for _, name in seen} == {"tiny", "newer"}


# ------------------------------------------------------------------------------------------------------- faults


def home_of(url: str, video: Path) -> str:
    """The replica that watches a clip that nobody has asked about, among two that are up."""
    assert eventually(lambda: len(numbers(url, "cluenet_cache", cache="clips", what="misses")) == 2)
    before = built(url)
    assert ask(url, video).status_code == 200
    (home,) = (one for one, count in built(url).items() if count != before.get(one, 0))
    return home


@pytest.mark.slow
def test_a_question_is_asked_again_when_its_replica_dies(deploy: Deploy, video: Path) -> None:
    url = deploy(SlowEngine, **engines(2))
    home = home_of(url, video)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, url, video, "sleep 5 ?")
        time.sleep(2)
        ray.kill(replicas("Engine")[home])
        assert waiting.result().status_code == 200
    assert sum(numbers(url, "cluenet_retries_total").values()) >= 1


def test_a_stream_that_has_begun_ends_with_an_error_event(deploy: Deploy, video: Path) -> None:
    url = deploy(SlowEngine, **engines(2))
    home = home_of(url, write_noise(video.parent / "other.mp4", 7))
    video = video.parent / "other.mp4"
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=SECONDS)
    stream = client.chat.completions.create(model="tiny", messages=messages(video, "sleep 30 ?"), stream=True)
    pieces = []
    with pytest.raises(openai.APIError, match="the replica that answered ended"):
        for piece in stream:
            pieces.append(piece.choices[0].delta.content)
            if pieces[-1] == "so":
                ray.kill(replicas("Engine")[home])
    assert pieces[-1] == "so"


def test_a_client_that_goes_away_leaves_nothing_behind(deploy: Deploy, video: Path) -> None:
    url = deploy(SlowEngine, **engines(2))
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(
            f"{url}/v1/videoqa",
            json={"question": "sleep 20 ?", "options": OPTIONS, "video_url": video.as_uri()},
            timeout=3,
        )
    assert eventually(lambda: sum(numbers(url, "cluenet_requests_running").values()) == 1, 15)  # the one that asks


# ------------------------------------------------------------------------------------------------------ growing


@pytest.mark.slow
def test_engines_are_added_under_load_and_removed_after_it(deploy: Deploy, video: Path) -> None:
    url = deploy(SlowEngine, **engines(
        1, max_replicas=2, target_ongoing_requests=2, look_back_period_s=1, upscale_delay_s=1, downscale_delay_s=2
    ))  # fmt: skip
    assert ask(url, video).status_code == 200
    stopped = threading.Event()

    def load() -> list[int]:
        seen = []
        while not stopped.is_set():
            seen.append(ask(url, video, "sleep 1 ?").status_code)
        return seen

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(load) for _ in range(8)]
        try:
            grown = eventually(lambda: len(replicas("Engine")) == 2)
        finally:
            stopped.set()
        assert {status for one in running for status in one.result()} == {200}
    assert grown
    assert eventually(lambda: len(replicas("Engine")) == 1)
