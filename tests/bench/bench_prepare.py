"""Decoding many videos: what Ray adds to bare processes that write the same parts, Ray Data's own `read_videos` beside it, and what
becomes of memory and of the object store as videos grow in number.

Seconds are the clock's, so they want an idle machine. All of it runs on 2 CPUs.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from cluenet.data.batches import Batch, Clips, batches
from cluenet.data.parts import Account
from cluenet.data.workers import accounts_of
from cluenet.recipe import Recipe
from cluenet.records import VideoRef
from helpers.bare_processes import with_processes
from helpers.environments import ROOT
from helpers.other_readers import write_panned

ROUNDS = 2
VIDEOS, MANY = 300, 3000
WIDE_FRAMES = 900
OURS, THEIRS = (32, 160), (8, 24)
"""Videos of so many frames: a few and more, which tells what one more costs from what it costs to start."""
RAY_AT_MOST = 1.15
"""Times the seconds of bare processes."""
READ_VIDEOS_AT_LEAST = 5.0
"""Times the seconds of ours, for one more video."""
GOPS = (48, 12)
"""Distances of key frames: ours decodes 43 % and 11 % of all frames."""
FLAT = 1.15
"""Times the peak memory with 300 videos."""
FRAME_BYTES = 16 * 64 * 64 * 3


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    sources = os.pathsep.join(str(ROOT / name) for name in ("platform", "components", "tests"))
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    yield
    ray.shutdown()


def recipe_of(height: int, width: int) -> Recipe:
    size = {"height": height, "width": width}
    data = {"reader": "pyav", "sampler": {"name": "uniform", "frames": 16}, "size": size}
    return Recipe.from_dict({"name": "bench", "data": data})


def linked(folder: Path, videos: Sequence[Path], count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.hardlink_to(videos[number % len(videos)])
    return paths


def work_of(paths: Sequence[Path]) -> list[Batch]:
    clips = Clips()
    for path in paths:
        clips.add(VideoRef(str(path)))
    return list(batches(clips.jobs()))


def prepared(accounts: Iterator[Account]) -> int:
    """How many files; none of them failed."""
    files = [file for account in accounts for file in account["files"]]
    assert all("key" in clip for file in files for clip in file["clips"])
    return len(files)


# ------------------------------------------------------------------------------------------------- against processes


def test_what_ray_adds(benchmark, say, tmp_path: Path) -> None:
    """Processes and actors start within the measured time; Ray runs already."""
    videos = [write_panned(tmp_path / f"{seed}.mp4", 250, 240, 320, gop=48, seed=seed) for seed in range(4)]
    work, recipe = work_of(linked(tmp_path / "videos", videos, VIDEOS)), recipe_of(240, 320)
    seconds: dict[str, list[float]] = {"processes": [], "ray": []}
    made: dict[str, bytes] = {}
    for number in range(ROUNDS):
        for name, accounts in (("processes", with_processes), ("ray", accounts_of)):
            folder, started = tmp_path / f"{name}-{number}", time.perf_counter()
            assert prepared(accounts(work, recipe, folder)) == VIDEOS
            seconds[name].append(time.perf_counter() - started)
            made[name] = (folder / "clips" / work[0].part).read_bytes()
    assert made["processes"] == made["ray"]
    benchmark.pedantic(lambda: prepared(accounts_of(work, recipe, tmp_path / "ray-0")), rounds=1)  # parts are there
    bare, ours = (statistics.median(seconds[name]) for name in ("processes", "ray"))
    say(
        f"{VIDEOS} videos, 16 of 250 frames at 320x240: bare processes {bare:.1f} s, Ray Data {ours:.1f} s, {ours / bare:.2f} "
        f"times; a second time, everything found, {benchmark.stats.stats.min:.1f} s"
    )
    assert ours / bare <= RAY_AT_MOST


# ----------------------------------------------------------------------------------------------- against read_videos


def counted(paths: Sequence[Path]) -> int:
    """Frames that Ray Data reads; they are counted and dropped, and nothing is written."""
    frames = ray.data.read_videos([str(path) for path in paths])
    counts = frames.map_batches(lambda batch: {"frames": [len(batch["frame"])]}, batch_size=16)
    return sum(row["frames"] for row in counts.iter_rows())


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock: of one more video, and of all that does not grow with them."""

    each: float
    start: float

    @classmethod
    def of(cls, work: Callable[[int], object], few: int, many: int) -> Cost:
        """The better of two with a few: a slow start would make one more video look cheap."""

        def seconds(count: int) -> float:
            started = time.perf_counter()
            work(count)
            return time.perf_counter() - started

        start = min(seconds(few), seconds(few))
        each = (seconds(many) - start) / (many - few)
        return cls(each, start - few * each)

    def of_videos(self, count: int) -> float:
        return self.start + count * self.each

    def __str__(self) -> str:
        return f"{self.each:.3f} s a video and {self.start:.1f} s to start"


@pytest.mark.parametrize("gop", GOPS)
def test_against_read_videos(benchmark, say, tmp_path: Path, gop: int) -> None:
    """16 frames of each video, written; `read_videos` gives all, which are counted and dropped."""
    video = write_panned(tmp_path / "one.mp4", WIDE_FRAMES, 360, 640, gop=gop)
    paths, recipe = linked(tmp_path / "videos", [video], max(OURS)), recipe_of(360, 640)
    folders = (tmp_path / f"ours-{number}" for number in itertools.count())

    def prepare(count: int) -> None:
        assert prepared(accounts_of(work_of(paths[:count]), recipe, next(folders))) == count

    def read(count: int) -> None:
        assert counted(paths[:count]) == WIDE_FRAMES * count

    ours, theirs = benchmark.pedantic(lambda: (Cost.of(prepare, *OURS), Cost.of(read, *THEIRS)), rounds=1)
    ratio, whole = theirs.each / ours.each, theirs.of_videos(max(OURS)) / ours.of_videos(max(OURS))
    say(
        f"videos of {WIDE_FRAMES} frames at 640x360, a key frame every {gop}: ours {ours}, `read_videos` {theirs}: {ratio:.1f} times; "
        f"{max(OURS)} videos with their start {whole:.1f} times"
    )
    assert ratio >= READ_VIDEOS_AT_LEAST


# ---------------------------------------------------------------------------------------------- memory, object store


@contextmanager
def peak_mib() -> Iterator[list[float]]:
    """Most memory that this process and those below it have to themselves, looked at ten times a second; one number at the end."""
    peak, stop = [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            peak[0] = max(peak[0], sum(map(own_mib, [psutil.Process(), *psutil.Process().children(recursive=True)])))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def own_mib(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        memory = process.memory_info()
        return (memory.rss - memory.shared) / 2**20
    return 0.0


def sent_bytes(work: Sequence[Batch], accounts: Sequence[Account]) -> int:
    """All that Ray carries: batches to the workers, and accounts back, as the rows that they are."""
    return sum(len(batch.to_json()) for batch in work) + sum(len(json.dumps(account)) for account in accounts)


def test_memory_and_object_store(benchmark, say, tmp_path: Path) -> None:
    video = write_panned(tmp_path / "small.mp4", 32, 64, 64, gop=12)
    recipe, peaks, sent = recipe_of(64, 64), {}, {}
    for count in (VIDEOS, MANY):
        work = work_of(linked(tmp_path / str(count), [video], count))
        with peak_mib() as peak:
            accounts = list(accounts_of(work, recipe, tmp_path / f"made-{count}"))
        assert prepared(iter(accounts)) == count
        peaks[count], sent[count] = peak[0], sent_bytes(work, accounts) / count
    benchmark.pedantic(sent_bytes, (work, accounts), rounds=1)
    say(
        f"peak memory of all processes: {VIDEOS} videos {peaks[VIDEOS]:.0f} MiB, {MANY} videos {peaks[MANY]:.0f} MiB; through Ray's "
        f"object store {sent[VIDEOS]:.0f} and {sent[MANY]:.0f} bytes per video, whose frames are {FRAME_BYTES} bytes"
    )
    assert peaks[MANY] <= FLAT * peaks[VIDEOS]
    assert sent[MANY] < FRAME_BYTES / 10
