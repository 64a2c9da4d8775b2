"""How fast a few frames of a video are there: our readers beside those that users would take instead, and what isolation adds.

The same frames and times are asserted first. Every reader has one thread, so their seconds are those of the processor, taken in turn;
isolation is another process, so its seconds are the clock's and want an idle machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cluenet.decoding import FramePolicy, decode_clips
from cluenet.isolation import IsolatedDecoder, Job
from cluenet.plugins import load_components
from cluenet.records import Frames
from helpers.other_readers import Found, Read, middles, others, ours, write_panned

OF_THE_FASTEST = 0.95
"""Of the speed of the fastest other reader."""
ROUNDS = 5
ISOLATION_AT_MOST = 1.15
"""Times the seconds without it."""
ROUNDING = 2.0
"""Gray levels, on average: readers turn YUV into RGB with other rounding and other filters for the colours."""


@dataclass(frozen=True)
class Case:
    """Frames of a video, and how many of them are wanted."""

    frames: int
    height: int
    width: int
    gop: int
    wanted: int
    rounds: int = ROUNDS

    def __str__(self) -> str:
        return f"{self.wanted} of {self.frames} at {self.width}x{self.height}, a key frame every {self.gop}"


SMALL = Case(32, 64, 64, 12, 16, rounds=200)
"""A millisecond and a half a file, so that what surrounds decoding counts."""
LONG = Case(900, 360, 640, 48, 16)
CASES = [
    LONG,
    Case(900, 360, 640, 12, 16),
    Case(900, 360, 640, 250, 16),
    Case(300, 720, 1280, 48, 8),
    SMALL,
]

Video = Callable[[Case], Path]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """Made once."""
    load_components(only=("readers", "samplers"))
    folder = tmp_path_factory.mktemp("videos")

    def made(case: Case) -> Path:
        path = folder / f"{case.frames}-{case.height}-{case.gop}.mp4"
        return path if path.exists() else write_panned(path, case.frames, case.height, case.width, gop=case.gop)

    return made


def assert_same(found: Found, wanted: Found, case: Case) -> None:
    assert found.frames_THWC.shape == (case.wanted, case.height, case.width, 3)
    assert found.seconds_T == pytest.approx(wanted.seconds_T, abs=1e-3)
    difference_T = np.abs(found.frames_THWC.astype(np.int16) - wanted.frames_THWC).mean(axis=(1, 2, 3))
    assert difference_T.max() < ROUNDING


def processor_seconds(readers: dict[str, Read], path: Path, wanted: Sequence[int], rounds: int) -> dict[str, float]:
    """Medians; the readers take turns."""
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            started = time.process_time()
            read(path, wanted)
            found[name].append(time.process_time() - started)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_other_readers(benchmark, video: Video, say, case: Case) -> None:
    path, wanted, peers = video(case), middles(case.frames, case.wanted), others()
    first = benchmark.pedantic(ours("pyav"), (path, wanted), rounds=1)
    for read in (*peers.values(), ours("decord")):
        assert_same(read(path, wanted), first, case)
    took = processor_seconds(
        {"pyav": ours("pyav"), "decord, checked": ours("decord"), **peers}, path, wanted, case.rounds
    )
    fastest = min(peers, key=lambda name: took[name])
    ratio = took[fastest] / took["pyav"]
    benchmark.extra_info["ratio"] = round(ratio, 2)
    seconds = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in took.items())
    say(f"{case}: ms of the processor: {seconds}; ours {ratio:.2f} of the speed of {fastest}")
    assert ratio >= OF_THE_FASTEST


# ---------------------------------------------------------------------------------------------------------- isolation


def policy_of(case: Case) -> FramePolicy:
    return FramePolicy(
        reader={"name": "pyav"}, fallback=None, sampler={"name": "uniform", "frames": case.wanted},
        size={"height": case.height, "width": case.width}, codec="lossless",
    )  # fmt: skip


def linked(folder: Path, video: Path, count: int) -> list[Job]:
    paths = [folder / f"{number:04d}.mp4" for number in range(count)]
    for path in paths:
        path.hardlink_to(video)
    return [(str(path), None, ((0.0, None),)) for path in paths]


def in_this_process(jobs: Sequence[Job], policy: FramePolicy) -> Iterator[Frames]:
    for path, fps, clips in jobs:
        (frames,) = decode_clips(path, fps, clips, policy)
        assert isinstance(frames, Frames)
        yield frames


@pytest.mark.parametrize(("case", "count"), [(LONG, 8), (SMALL, 320)], ids=str)
def test_what_isolation_adds(benchmark, video: Video, say, tmp_path: Path, case: Case, count: int) -> None:
    jobs, policy = linked(tmp_path, video(case), count), policy_of(case)
    started = time.perf_counter()
    with IsolatedDecoder(policy) as decoder:
        (first,) = list(decoder.decode(jobs[:1]))
        start = time.perf_counter() - started
        (expected,) = in_this_process(jobs[:1], policy)
        assert np.array_equal(first.outcomes[0].frames_THWC, expected.frames_THWC)
        ratios = []
        for _ in range(3 * ROUNDS if case is SMALL else ROUNDS):
            started = time.perf_counter()
            assert sum(1 for _ in in_this_process(jobs, policy)) == count
            between = time.perf_counter()
            assert all(one.reader == "pyav" for one in decoder.decode(jobs))
            ratios.append((time.perf_counter() - between) / (between - started))
        benchmark.pedantic(lambda: list(decoder.decode(jobs)), rounds=1)
    ratio = statistics.median(ratios)
    say(
        f"isolation, {count} videos, {case}: {1e3 * benchmark.stats.stats.min / count:.1f} ms per video, {ratio:.2f} times those "
        f"without it; the first file with the start of its process {start:.1f} s"
    )
    assert ratio <= ISOLATION_AT_MOST
