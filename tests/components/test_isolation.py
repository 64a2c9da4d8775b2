"""A file that hangs, aborts the decoder or eats memory costs one row: the others are delivered, in order."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluenet import isolation
from cluenet.decoding import FramePolicy
from cluenet.errors import MediaError, PluginError
from cluenet.isolation import Decoded, IsolatedDecoder, Job
from cluenet.records import Frames
from cluenet.testing.videos import counting_frames, read_number, write_garbage, write_video

PLUGIN = "helpers.bad_readers"
FRAMES = [1, 3, 6, 8]  # uniform, 4 of 10


def policy(reader: str = "bad", fallback: str | None = None, **settings: Any) -> FramePolicy:
    return FramePolicy(
        reader={"name": reader, **settings},
        fallback={"name": fallback} if fallback else None,
        sampler={"name": "uniform", "frames": 4},
        size={"height": 32, "width": 32},
        codec="lossless",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    write_video(made / "good.mp4", counting_frames(10), fps=10)
    return made


def jobs(folder: Path, *names: str) -> list[Job]:
    """Each name is a link to the good video; only the name makes the reader misbehave."""
    for name in names:
        link = folder / f"{name}.mp4"
        if not link.exists():
            link.symlink_to(folder / "good.mp4")
    return [(str(folder / f"{name}.mp4"), None, ((0.0, None),)) for name in names]


def decoded(made: FramePolicy, work: list[Job], **options: Any) -> list[Decoded]:
    options = {"timeout_seconds": 30, "plugins": (PLUGIN,), **options}
    with IsolatedDecoder(made, **options) as decoder:
        return list(decoder.decode(work))


def reasons(results: list[Decoded]) -> list[str | None]:
    """The reason of each file, None where its frames are right."""
    found: list[str | None] = []
    for result in results:
        [outcome] = result.outcomes
        if isinstance(outcome, Frames):
            assert [read_number(frame_HWC) for frame_HWC in outcome.frames_THWC] == FRAMES
            assert result.reader is not None
            found.append(None)
        else:
            assert result.reader is None
            found.append(outcome.reason)
    return found


def test_results_come_in_order_each_file_opened_once(folder: Path, tmp_path: Path) -> None:
    names = [f"good{i:02d}" for i in range(2 * isolation.FILES_PER_TASK + 3)]
    log = tmp_path / "log"
    results = decoded(policy(log=str(log)), jobs(folder, *names), workers=2, recycle_after=1)
    assert reasons(results) == [None] * len(names)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert Counter(Path(path).stem for _, path in lines) == Counter(names)
    pids = {pid for pid, _ in lines}
    assert len(pids) == 3, "three groups of files, each in a fresh process"
    assert str(os.getpid()) not in pids


def test_a_crash_costs_one_file(folder: Path) -> None:
    results = decoded(policy(), jobs(folder, "good", "abort", "good", "exit", "good"))
    assert reasons(results) == [None, "crashed", None, "crashed", None]
    assert results[1].failed == (("bad", "crashed"),)
    [error] = results[1].outcomes
    assert isinstance(error, MediaError)
    assert str(folder / "abort.mp4") in error.message
    assert "-6" in error.message, "SIGABRT"


def test_a_hang_costs_one_file_and_the_time_limit(folder: Path) -> None:
    started = time.monotonic()
    results = decoded(policy(), jobs(folder, "good", "hang", "good"), timeout_seconds=2)
    assert reasons(results) == [None, "timeout", None]
    assert time.monotonic() - started < 40, "not the reader's 600 s"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's RLIMIT_DATA")
def test_memory_is_limited(folder: Path) -> None:
    work = jobs(folder, "good", "memory", "good")
    assert reasons(decoded(policy(), work, memory_gib=2)) == [None, "memory", None]


def test_frames_that_cannot_be_handed_over_cost_one_file(folder: Path) -> None:
    results = decoded(policy(), jobs(folder, "good", "heavy", "good"))
    assert reasons(results) == [None, "memory", None]
    assert "not enough memory to hand over what bad decoded" in str(results[1].outcomes[0])


def test_mistakes_of_a_reader_are_reported_with_the_file(folder: Path) -> None:
    results = decoded(policy(), jobs(folder, "bug", "good", "broken"))
    assert reasons(results) == ["internal", None, "corrupt"]
    assert "ZeroDivisionError: a mistake in the reader" in str(results[0].outcomes[0])


def test_a_process_that_dies_between_files_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "FILES_PER_TASK", 1)

    def slowly() -> Iterator[Job]:
        for job in jobs(folder, "late_abort", "good", "late_abort", "good"):
            yield job
            time.sleep(1.5)  # the process dies while it has nothing to do

    with IsolatedDecoder(policy(), timeout_seconds=30, plugins=(PLUGIN,)) as decoder:
        monkeypatch.setattr(isolation, "GROUPS_AHEAD", 1)
        assert reasons(list(decoder.decode(slowly()))) == [None] * 4


def test_the_fallback_delivers_what_the_first_reader_cannot(folder: Path) -> None:
    results = decoded(policy(fallback="pyav"), jobs(folder, "good", "abort", "broken", "bug"))
    assert reasons(results) == [None] * 4
    assert [(result.reader, result.failed, result.openings) for result in results] == [
        ("bad", (), 1),
        ("pyav", (("bad", "crashed"),), 2),
        ("pyav", (("bad", "corrupt"),), 2),
        ("pyav", (("bad", "internal"),), 2),
    ]


def test_when_both_readers_fail_both_are_named(folder: Path) -> None:
    results = decoded(policy(fallback="worse"), jobs(folder, "abort", "broken"))
    assert reasons(results) == ["crashed", "corrupt"]
    assert [result.failed for result in results] == [
        (("bad", "crashed"), ("worse", "crashed")),
        (("bad", "corrupt"), ("worse", "corrupt")),
    ]
    assert [result.openings for result in results] == [2, 2]


def test_no_second_reader_for_a_file_that_is_not_there(folder: Path) -> None:
    missing = (str(folder / "nowhere.mp4"), None, ((0.0, None), (0.0, 0.5)))
    [result] = decoded(policy(fallback="pyav"), [missing])
    assert [outcome.reason for outcome in result.outcomes] == ["missing", "missing"], "one for each clip"
    assert (result.failed, result.openings) == ((("bad", "missing"),), 1)


def test_decord_falls_back_to_pyav(folder: Path) -> None:
    """The default policy over a file that decord would get wrong, and one that neither can read."""
    edited = write_video(folder / "edited.mp4", counting_frames(12), fps=10, bframes=2, trim_frames=2)
    garbage = write_garbage(folder / "garbage.mp4")
    work: list[Job] = [(str(path), None, ((0.0, None),)) for path in (folder / "good.mp4", edited, garbage)]
    good, second, bad = decoded(policy("decord", "pyav"), work, plugins=())
    assert reasons([good]) == [None]
    assert (good.reader, second.reader, bad.reader) == ("decord", "pyav", None)
    assert second.failed == (("decord", "unsupported"),)
    assert [read_number(frame) for frame in second.outcomes[0].frames_THWC] == [number + 2 for number in FRAMES]
    assert bad.failed == (("decord", "corrupt"), ("pyav", "corrupt"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the groups that go to workers."""
    sizes: list[int] = []
    submit = IsolatedDecoder._submit

    def counted(self: IsolatedDecoder, group: list[Job], readers: list[Any]) -> Any:
        sizes.append(len(group))
        return submit(self, group, readers)

    monkeypatch.setattr(IsolatedDecoder, "_submit", counted)
    return sizes


def test_slow_groups_are_handed_back_and_finished(folder: Path, asked: list[int]) -> None:
    results = decoded(policy("slow"), jobs(folder, "a", "b", "c"), timeout_seconds=4)  # 1.5 s a file, budget 1 s
    assert reasons(results) == [None] * 3
    assert asked == [3, 2, 1]


def test_large_groups_are_handed_back_and_finished(folder: Path, asked: list[int]) -> None:
    """So that a worker's memory does not grow with the files of a group."""
    large = replace(policy("pyav"), size={"height": 1024, "width": 1024})  # 12 MiB a file
    results = decoded(large, jobs(folder, "good", "good", "good"))
    assert [result.outcomes[0].frames_THWC.shape for result in results] == [(4, 1024, 1024, 3)] * 3
    assert asked == [3, 2, 1]


def test_clips_without_frames_do_not_fail_the_file(folder: Path) -> None:
    work = (str(folder / "good.mp4"), None, ((0.0, None), (50.0, 60.0)))
    [result] = decoded(policy(fallback="pyav"), [work])
    assert isinstance(result.outcomes[0], Frames)
    assert result.outcomes[1].reason == "outside"
    assert (result.reader, result.failed) == ("bad", ())


def test_a_plug_in_that_cannot_be_imported_is_an_error_and_not_an_endless_restart(folder: Path) -> None:
    with pytest.raises(PluginError, match=r"helpers\.no_such_module"):
        decoded(policy("pyav"), jobs(folder, "good"), plugins=("helpers.no_such_module",))


def test_closing_ends_the_processes(folder: Path) -> None:
    others = set(multiprocessing.active_children())
    decoder = IsolatedDecoder(policy(), timeout_seconds=30, plugins=(PLUGIN,))
    results = decoder.decode(jobs(folder, *["good"] * 9, "hang"))
    assert reasons([next(results)]) == [None]
    assert set(multiprocessing.active_children()) - others
    decoder.close()
    deadline = time.monotonic() + 10
    while (left := set(multiprocessing.active_children()) - others) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def _make_decoder(out: Any) -> None:
    try:
        IsolatedDecoder(policy())
    except RuntimeError as error:
        out.send(str(error))


def test_a_daemonic_process_is_told() -> None:
    receive, send = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_make_decoder, args=(send,), daemon=True)
    process.start()
    assert receive.poll(30)
    assert "daemonic" in receive.recv()
    process.join()
