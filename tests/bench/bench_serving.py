"""What the endpoint costs, and what sharing is worth: a model of 19 M parameters on Ray Serve on this machine.

Every figure is a ratio within one run. Videos are of 320 x 240 pixels, questions have three options and are scored by letters.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
import ray
import torch
from ray import serve

from cluenet.ask import decode, example_of
from cluenet.decoding import FramePolicy
from cluenet.model.checkpoint import load_model, save_model
from cluenet.model.engine.engine import Engine, Question
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.records import VideoRef
from cluenet.serve import launch
from cluenet.serve.app import application
from cluenet.serve.arguments import APP, AppArgs
from cluenet.testing.videos import write_video
from helpers.environments import ROOT
from helpers.evaluation import recipe
from helpers.models import tiny_model
from helpers.serving import OPTIONS, engines, free_port, replicas
from helpers.slow_engine import OnlySleeps

CLIENTS = 16
CLIPS = 8
MANY_CLIPS = 32
"""For two replicas: few clips are shared out unevenly by their hashes."""
QUESTIONS = 96
ROUNDS = 3
Run = Callable[[str, Sequence[tuple[Path, str]]], float]


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    launch.lower_overhead()
    sources = ":".join(str(ROOT / name) for name in ("platform", "components", "tests"))
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    tokenizer = fit_tokenizer(["which one hits red blue green ? why so"], blocks=8, max_words=100)
    size = {"hidden": 512, "layers": 6, "heads": 8, "vision_hidden": 128, "vision_layers": 2}
    new_model(tokenizer, family="qwen3_vl", patch=8, seed=0, **size).save(folder / "base")
    size = {"height": 96, "width": 128}
    settings = recipe(data={"size": size, "sampler": {"name": "uniform", "frames": 16}})
    policy = FramePolicy.from_section(settings.data).to_dict()
    built = tiny_model(folder=folder / "base")
    return save_model(built, folder / "model", recipe=settings.to_dict(), frame_policy=policy, card={})


@pytest.fixture(scope="module")
def videos(folder: Path) -> list[Path]:
    return [noise(folder / f"{number}.mp4", number) for number in range(CLIPS)]


def noise(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (96, 24, 32, 3), dtype=np.uint8)
    write_video(path, small.repeat(10, axis=1).repeat(10, axis=2), fps=24)
    return path


@pytest.fixture(scope="module")
def many(folder: Path) -> list[Path]:
    return [noise(folder / f"many{number}.mp4", 200 + number) for number in range(MANY_CLIPS)]


@pytest.fixture(scope="module")
def port(ray_session: None) -> int:
    return free_port()


@pytest.fixture(scope="module")
def deploy(model: Path, folder: Path, port: int) -> Callable[..., str]:
    def deployed(count: int, replica: type | None = None, **section) -> str:
        args = AppArgs(
            model=str(model), serve={"port": port, "allowed_roots": [str(folder)], **engines(count), **section}
        )
        if replica is None:
            launch.start(args)
        else:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(application(args, replica), name=APP, route_prefix="/")
        wait_for(lambda: len(replicas("Engine")) == count)
        return f"http://127.0.0.1:{port}"

    return deployed


def wait_for(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.2)


def work(videos: Sequence[Path], questions: int = QUESTIONS) -> list[tuple[Path, str]]:
    return [(videos[n % len(videos)], f"which one hits {OPTIONS[n % 3]} {n} ?") for n in range(questions)]


async def _ask(client: httpx2.AsyncClient, url: str, video: Path, question: str) -> tuple[int, float]:
    body = {"question": question, "options": list(OPTIONS), "video_url": video.as_uri(), "explain": False}
    started = time.perf_counter()
    response = await client.post(f"{url}/v1/videoqa", json=body)
    return response.status_code, time.perf_counter() - started


async def _load(url: str, asked: Sequence[tuple[Path, str]], clients: int) -> list[tuple[int, float]]:
    waiting, found = list(reversed(asked)), []
    async with httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=clients)) as client:

        async def one() -> None:
            while waiting:
                found.append(await _ask(client, url, *waiting.pop()))

        await asyncio.gather(*(one() for _ in range(clients)))
    return found


def load(url: str, asked: Sequence[tuple[Path, str]], clients: int = CLIENTS) -> tuple[float, list[tuple[int, float]]]:
    """(seconds, (status, seconds) of every request)"""
    started = time.perf_counter()
    found = asyncio.run(_load(url, asked, clients))
    return time.perf_counter() - started, found


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


def percentiles(seconds: Sequence[float]) -> str:
    return ", ".join(f"p{p} {1000 * np.percentile(seconds, p):.0f} ms" for p in (50, 95, 99))


# --------------------------------------------------------------------------------------------------- against the engine


def bare(engine: Engine, frames: dict[Path, object], asked: Sequence[tuple[Path, str]]) -> float:
    """Seconds of the engine alone with as many questions at a time as there are clients."""

    def one(place: int) -> None:
        video, question = asked[place]
        example = example_of(str(video), question, OPTIONS)
        engine.submit(Question(str(video), example, frames[video])).result()

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(len(asked))))
    return time.perf_counter() - started


def test_http_against_the_engine_alone(deploy, model: Path, videos: list[Path], capsys) -> None:
    url, asked = deploy(1), work(videos)
    policy = FramePolicy.from_section(
        recipe(data={"size": {"height": 96, "width": 128}, "sampler": {"name": "uniform", "frames": 16}}).data
    )
    frames = {video: decode(VideoRef(str(video)), policy)[0] for video in videos}
    torch.set_num_threads(1)
    latencies: list[float] = []
    alone, through = [], []
    with Engine(load_model(model)) as engine:
        bare(engine, frames, asked)
        load(url, asked)  # both have watched all clips
        for _ in range(ROUNDS):
            alone.append(bare(engine, frames, asked))
            seconds, found = load(url, asked)
            through.append(seconds)
            latencies += [one for _, one in found]
            assert {status for status, _ in found} == {200}
    ratio = statistics.median(a / t for a, t in zip(alone, through))
    say(capsys, f"engine alone {len(asked) / min(alone):.1f} questions/s, through HTTP {len(asked) / min(through):.1f}, ratio "
        f"{ratio:.2f}; {CLIENTS} clients: {percentiles(latencies)}")  # fmt: skip
    assert ratio >= 0.8


def test_the_second_question_about_a_clip(deploy, folder: Path, capsys) -> None:
    url = deploy(1)
    load(url, [(noise(folder / "warm.mp4", 99), "why ?")], 1)
    firsts, seconds = [], []
    for number in range(8):
        video = noise(folder / f"fresh{number}.mp4", 100 + number)
        firsts += [one for _, one in load(url, [(video, "which one hits red ?")], 1)[1]]
        seconds += [one for _, one in load(url, [(video, "which one hits blue ?")], 1)[1]]
    ratio = statistics.median(firsts) / statistics.median(seconds)
    say(
        capsys,
        f"first question {1000 * statistics.median(firsts):.0f} ms, second {1000 * statistics.median(seconds):.0f} ms, {ratio:.1f} times",
    )
    assert ratio >= 3.0


def test_questions_about_one_clip_together(deploy, videos: list[Path], capsys) -> None:
    url, asked = deploy(1), work(videos[:1], 8)
    load(url, asked, 8)
    alone = [load(url, asked, 1)[0] for _ in range(ROUNDS)]
    together = [load(url, asked, 8)[0] for _ in range(ROUNDS)]
    ratio = statistics.median(alone) / statistics.median(together)
    say(
        capsys,
        f"8 questions about one clip: one by one {statistics.median(alone):.2f} s, together {statistics.median(together):.2f} s, {ratio:.2f} times",
    )
    assert ratio >= 1.8


# ---------------------------------------------------------------------------------------------------------- two replicas


def rate(url: str, asked: Sequence[tuple[Path, str]]) -> float:
    load(url, asked)
    return len(asked) / min(load(url, asked)[0] for _ in range(ROUNDS))


def test_two_replicas(deploy, many: list[Path], capsys) -> None:
    one, two = (rate(deploy(count), work(many)) for count in (1, 2))
    say(capsys, f"one replica {one:.1f} questions/s, two {two:.1f}: {two / one:.2f} times")
    assert two / one >= 1.3


def test_two_replicas_that_only_sleep(deploy, many: list[Path], capsys) -> None:
    """Each lets four questions in at a time: what surrounds the engine does not hold it up."""
    asked = [(video, "sleep 0.4 ?") for video, _ in work(many, 64)]
    of_one = {"engine": {**engines(1)["engine"], "max_ongoing_requests": 4}}
    of_two = {"engine": {**engines(2)["engine"], "max_ongoing_requests": 4}}
    one, two = rate(deploy(1, OnlySleeps, **of_one), asked), rate(deploy(2, OnlySleeps, **of_two), asked)
    say(capsys, f"sleeping: one replica {one:.1f} questions/s, two {two:.1f}: {two / one:.2f} times")
    assert two / one >= 1.8


# ------------------------------------------------------------------------------------------------------------------ soak


def memory_mib(names: Sequence[str] = ("Ingress", "Decoding", "Engine")) -> float:
    """Of the processes of all replicas."""
    import psutil

    marks = [f"ServeReplica:{APP}:{name}" for name in names]
    found = 0.0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if any(mark in " ".join(process.info["cmdline"] or ()) for mark in marks):
            found += process.info["memory_info"].rss / 2**20
    return found


def test_four_times_what_it_can_do(deploy, videos: list[Path], capsys) -> None:
    """Every request ends in 200, 429 or 503; memory stays flat; a replica that is killed loses nothing unanswered."""
    url = deploy(2, limits={"max_waiting": CLIENTS})
    asked = work(videos, 500)
    load(url, asked)
    before, statuses = memory_mib(), []
    for part in range(4):
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(load, url, asked, 4 * CLIENTS)
            if part == 1:
                time.sleep(1)
                ray.kill(next(iter(replicas("Engine").values())))
            statuses += [status for status, _ in running.result()[1]]
    after = memory_mib()
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    say(capsys, f"{len(statuses)} requests of {4 * CLIENTS} clients: {counts}; memory {before:.0f} -> {after:.0f} MiB")
    assert len(statuses) == 4 * len(asked)
    assert set(counts) <= {200, 429, 503}
    assert counts[200] > 0
    assert after < before * 1.15
