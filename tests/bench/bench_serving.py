"""What the endpoint costs, and what sharing is worth: a model of 19 M parameters on Ray Serve on this machine.

Every figure is a ratio within one run. Videos are of 320 x 240 pixels, questions have three options and are scored by letters.
The client is a process of its own, and the bare engine runs while all processes of the endpoint are alive.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
import torch
from ray import serve

from cluenet.model.checkpoint import load_model
from cluenet.model.engine.engine import Engine, Question
from cluenet.serve import launch
from cluenet.serve.app import application
from cluenet.serve.arguments import APP, AppArgs
from helpers.environments import ROOT
from helpers.http_load import Found
from helpers.processor import memory_mib, processor_seconds
from helpers.serving import engines, free_port, numbers, replicas
from helpers.serving_load import answered_rate, load, percentiles, questions_of, work, write_blocks, write_model
from helpers.slow_engine import OnlySleeps

BATCH = 16
"""Questions that an engine answers together."""
CLIENTS = 2 * BATCH
"""While one batch is answered, the next one is on its way: the engine has no reason to wait."""
CLIPS = 8
MANY_CLIPS = 32
"""For two replicas: few clips are shared out unevenly by their hashes."""
QUESTIONS = 12 * BATCH
ROUNDS = 5
OVERLOAD = 4
"""Times the rate that the endpoint answers."""


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
    return write_model(folder)


@pytest.fixture(scope="module")
def videos(folder: Path) -> list[Path]:
    return write_blocks(folder, CLIPS)


@pytest.fixture(scope="module")
def many(folder: Path) -> list[Path]:
    return write_blocks(folder, MANY_CLIPS, seed=200)


@pytest.fixture(scope="module")
def port(ray_session: None) -> int:
    return free_port()


@pytest.fixture(scope="module")
def deploy(model: Path, folder: Path, port: int) -> Callable[..., str]:
    def deployed(count: int, replica: type | None = None, **section) -> str:
        values = {"port": port, "allowed_roots": [str(folder)], "most_questions": BATCH, **engines(count), **section}
        args = AppArgs(model=str(model), serve=values)
        if replica is None:
            launch.start(args)
        else:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(application(args, replica), name=APP, route_prefix="/")
        while len(replicas("Engine")) != count:
            time.sleep(0.2)
        return f"http://127.0.0.1:{port}"

    return deployed


# --------------------------------------------------------------------------------------------------- against the engine


def bare(engine: Engine, questions: Sequence[Question]) -> tuple[float, float]:
    """Questions per second of the engine alone, in full batches; processor seconds of a question."""
    started, before = time.perf_counter(), time.process_time()
    engine.answer(questions)
    took, processor = time.perf_counter() - started, time.process_time() - before
    return len(questions) / took, processor / len(questions)


def answered_in_batches(url: str) -> tuple[float, float]:
    """(questions, each counted as often as it has companions; questions) that the engines have answered so far."""
    name = "cluenet_engine_batch_questions"
    return sum(numbers(url, f"{name}_sum").values()), sum(numbers(url, f"{name}_count").values())


def test_http_against_the_engine_alone(deploy, model: Path, videos: list[Path], say) -> None:
    url, asked = deploy(1), work(videos, QUESTIONS)
    torch.set_num_threads(1)
    alone, founds, processor = [], [], []
    with Engine(load_model(model), most_questions=BATCH) as engine:
        questions = questions_of(model, asked)
        bare(engine, questions)
        answered_rate(load(url, asked, CLIENTS))  # both have watched all clips
        batches = answered_in_batches(url)
        for _ in range(ROUNDS):
            alone.append(bare(engine, questions))
            before = processor_seconds()
            founds.append(load(url, asked, CLIENTS))
            processor.append(processor_seconds() - before)
    together, count = (after - before for after, before in zip(answered_in_batches(url), batches, strict=True))
    ratios = [answered_rate(theirs) / rate for (rate, _), theirs in zip(alone, founds, strict=True)]
    say(
        f"engine alone {statistics.median(rate for rate, _ in alone):.1f} questions/s, through HTTP "
        f"{statistics.median(map(answered_rate, founds)):.1f}, ratios {', '.join(f'{one:.2f}' for one in ratios)}; batches of "
        f"{together / count:.1f}; {CLIENTS} clients: {percentiles([one for found in founds for one in found.latencies])}"
    )
    say(costs(alone, founds, processor))
    assert statistics.median(ratios) >= 0.8


def costs(alone: Sequence[tuple[float, float]], founds: Sequence[Found], processor: Sequence[Counter[str]]) -> str:
    """Milliseconds of processor time per question by process, and what ratio they allow: an engine answers no faster than its
    own time, and nobody faster than all cores together."""
    each = {name: statistics.median(one[name] for one in processor) / QUESTIONS for name in processor[0]}
    each["client"] = statistics.median(found.processor_seconds for found in founds) / QUESTIONS
    cores = len(os.sched_getaffinity(0))
    seconds, spent = (statistics.median(values) for values in zip(*((1 / rate, own) for rate, own in alone)))
    most = seconds * min(1 / each["engine"], cores / sum(each.values()))
    table = ", ".join(f"{name} {1000 * value:.2f}" for name, value in sorted(each.items(), key=lambda one: -one[1]))
    return (
        f"processor ms per question: {table}; the engine alone {1000 * spent:.2f}, {spent / each['engine']:.2f} of its "
        f"replica's; {cores} cores allow a ratio of {most:.2f}"
    )


def test_the_second_question_about_a_clip(deploy, folder: Path, say) -> None:
    url = deploy(1)
    warm, *videos = write_blocks(folder, 9, seed=100)
    load(url, [(warm, "why ?")])
    firsts = [load(url, [(video, "which one hits red ?")]).seconds for video in videos]
    seconds = [load(url, [(video, "which one hits blue ?")]).seconds for video in videos]
    first, second = statistics.median(firsts), statistics.median(seconds)
    say(f"first question {1000 * first:.0f} ms, second {1000 * second:.0f} ms, {first / second:.1f} times")
    assert first / second >= 3.0


def test_questions_about_one_clip_together(deploy, videos: list[Path], say) -> None:
    url, asked = deploy(1), work(videos[:1], 32)
    load(url, asked, 8)
    alone, together = [], []
    for _ in range(ROUNDS):
        alone.append(answered_rate(load(url, asked, 1)))
        together.append(answered_rate(load(url, asked, 8)))
    ratios = [b / a for a, b in zip(alone, together, strict=True)]
    say(
        f"questions about one clip: one by one {statistics.median(alone):.1f} questions/s, 8 at a time "
        f"{statistics.median(together):.1f}, ratios {', '.join(f'{one:.2f}' for one in ratios)}"
    )
    assert statistics.median(ratios) >= 1.8


# ---------------------------------------------------------------------------------------------------------- two replicas


def test_two_replicas(deploy, many: list[Path], say) -> None:
    """Asked by as many clients as two engines need for full batches."""
    asked = work(many, 2 * QUESTIONS)

    def rate(count: int) -> float:
        url = deploy(count)
        load(url, asked, 2 * CLIENTS)
        return statistics.median(answered_rate(load(url, asked, 2 * CLIENTS)) for _ in range(ROUNDS))

    one, two = rate(1), rate(2)
    say(f"one replica {one:.1f} questions/s, two {two:.1f}: {two / one:.2f} times")
    assert two / one >= 1.3


def test_two_replicas_that_only_sleep(deploy, many: list[Path], say) -> None:
    """Each lets four questions in at a time: what surrounds the engine does not hold it up."""
    asked = [(video, "sleep 0.4 ?") for video, _ in work(many, 64)]

    def rate(count: int) -> float:
        url = deploy(count, OnlySleeps, engine={**engines(count)["engine"], "max_ongoing_requests": 4})
        load(url, asked, CLIENTS)
        return max(answered_rate(load(url, asked, CLIENTS)) for _ in range(3))

    one, two = rate(1), rate(2)
    say(f"sleeping: one replica {one:.1f} questions/s, two {two:.1f}: {two / one:.2f} times")
    assert two / one >= 1.8


# ------------------------------------------------------------------------------------------------------------------ soak


def counts(found: Found) -> dict[int, int]:
    return dict(sorted(Counter(status for status, _ in found.answers).items()))


def test_four_times_what_it_can_do(deploy, videos: list[Path], say) -> None:
    """Every request ends in 200, 429 or 503, as many are answered as otherwise, and memory stays flat."""
    url = deploy(1, limits={"max_waiting": CLIENTS})
    load(url, work(videos, QUESTIONS), CLIENTS)
    rate = answered_rate(load(url, work(videos, 500), CLIENTS))
    before = memory_mib()
    found = load(url, work(videos, 2000), rate=OVERLOAD * rate)
    after, goodput = memory_mib(), found.count(200) / found.seconds
    say(
        f"{rate:.1f} questions/s; at {OVERLOAD} times that {counts(found)}, {goodput:.1f} answered per second: "
        f"{goodput / rate:.2f}; memory {before:.0f} -> {after:.0f} MiB"
    )
    assert set(counts(found)) <= {200, 429, 503}
    assert goodput >= 0.9 * rate
    assert after < before * 1.15


def test_a_replica_that_is_killed_under_load_leaves_nothing_unanswered(deploy, videos: list[Path], say) -> None:
    url, asked = deploy(2, limits={"max_waiting": CLIENTS}), work(videos, 500)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load, url, asked, rate=OVERLOAD * CLIENTS)
        time.sleep(2)
        ray.kill(next(iter(replicas("Engine").values())))
        found = running.result()
    say(f"{len(asked)} requests, {OVERLOAD * CLIENTS} per second, an engine killed: {counts(found)}")
    assert len(found.answers) == len(asked)
    assert set(counts(found)) <= {200, 429, 503}
    assert found.count(200)
