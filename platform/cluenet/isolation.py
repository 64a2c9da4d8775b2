"""Decodes in recycled worker processes with a time limit, so that a file that hangs or aborts the C++ decoder costs one
row and never the job. The fallback reader is tried before a file is given up. Ray-free; usable inside a Ray task."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired, ProcessPool

from cluenet.decoding import ClipBounds, FramePolicy, decode_clips
from cluenet.errors import MediaError
from cluenet.plugins import load_components
from cluenet.records import Frames

FILES_PER_TASK = 8
"""Small files go to a worker together, so that talking to it costs little; after a failure each goes alone."""

Job = tuple[str, float | None, tuple[ClipBounds, ...]]


@dataclass(frozen=True)
class Decoded:
    """What became of one file: an outcome per clip, which reader delivered, and which failed before it and why."""

    outcomes: list[Frames | MediaError]
    reader: str | None
    failed: tuple[tuple[str, str], ...] = ()  # (reader, reason)
    openings: int = 1


class IsolatedDecoder:
    """`decode(jobs)` yields a `Decoded` per job, in order. Close it, or use it in a `with` block."""

    def __init__(
        self, policy: FramePolicy, *, workers: int = 1, timeout_seconds: float = 60.0, recycle_after: int = 100,
        plugins: Sequence[str] = (),
    ):  # fmt: skip
        self._policy, self._timeout, self._plugins = policy, timeout_seconds, tuple(plugins)
        # spawn: a fork of a process with threads (Ray's) can hang; recycling bounds what decoders leak
        self._pool = ProcessPool(
            max_workers=workers, max_tasks=recycle_after, context=multiprocessing.get_context("spawn"),
            initializer=_load_decoders, initargs=(self._plugins,),
        )  # fmt: skip

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()

    def decode(self, jobs: Iterable[Job]) -> Iterator[Decoded]:
        jobs = list(jobs)
        groups = [jobs[start : start + FILES_PER_TASK] for start in range(0, len(jobs), FILES_PER_TASK)]
        tasks = [(group, self._submit(group, self._policy.reader)) for group in groups]
        for group, task in tasks:
            try:
                first = task.result()
            except (FutureTimeout, ProcessExpired):
                first = [self._alone(job, self._policy.reader) for job in group]
            yield from (self._with_fallback(job, outcome) for job, outcome in zip(group, first))

    def _submit(self, group: Sequence[Job], reader: Mapping[str, Any]):
        # the first task of a fresh process also pays for its imports
        limit = self._timeout * len(group) + 30.0
        return self._pool.schedule(_decode_group, args=[list(group), self._policy, dict(reader)], timeout=limit)

    def _alone(self, job: Job, reader: Mapping[str, Any]) -> list[Frames | MediaError] | MediaError:
        task = self._pool.schedule(_decode_group, args=[[job], self._policy, dict(reader)], timeout=self._timeout)
        try:
            return task.result()[0]
        except FutureTimeout:
            return MediaError("timeout", f"{job[0]}: not decoded within {self._timeout:g} s")
        except ProcessExpired as error:
            return MediaError("crashed", f"{job[0]}: the decoding process died (exit code {error.exitcode})")

    def _with_fallback(self, job: Job, first: list[Frames | MediaError] | MediaError) -> Decoded:
        name = self._policy.reader["name"]
        if not isinstance(first, MediaError):
            return Decoded(first, name)
        fallback = self._policy.fallback
        hopeless = first.reason in ("missing", "empty", "no_fps")
        if fallback is None or fallback["name"] == name or hopeless:
            return Decoded([first] * len(job[2]), None, ((name, first.reason),))
        second = self._alone(job, fallback)
        failed = ((name, first.reason),)
        if isinstance(second, MediaError):
            return Decoded([second] * len(job[2]), None, (*failed, (fallback["name"], second.reason)), openings=2)
        return Decoded(second, fallback["name"], failed, openings=2)


def _load_decoders(plugins: Sequence[str]) -> None:
    load_components(plugins, only=("readers", "samplers"))


def _decode_group(
    jobs: list[Job], policy: FramePolicy, reader: dict[str, Any]
) -> list[list[Frames | MediaError] | MediaError]:
    return [_decode_one(job, policy, reader) for job in jobs]


def _decode_one(job: Job, policy: FramePolicy, reader: dict[str, Any]) -> list[Frames | MediaError] | MediaError:
    path, fps, clips = job
    try:
        return decode_clips(path, fps, clips, policy, reader=reader)
    except MediaError as error:
        return error
