"""Decodes in recycled worker processes with a time and a memory limit, so that a file that hangs or aborts the C++ decoder
costs one row and never the job. The fallback reader is tried before a file is given up.

Ray-free, and usable inside a Ray task or actor. Only settings and plain values cross the process boundary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pebble import ProcessExpired

from cluenet.decoding import ClipBounds, FramePolicy, decode_clips
from cluenet.errors import CluenetError, MediaError
from cluenet.plugins import load_components
from cluenet.processes import Call, WorkerPool
from cluenet.records import Frames

FILES_PER_TASK, BYTES_PER_RESULT = 8, 16 * 2**20
"""Small files go to a worker together, so that talking to it costs little; it hands back what it has once that is large. After a
failure each goes alone."""
GROUPS_AHEAD = 2
"""Groups per worker that are decoded before their turn to be yielded: enough to keep it busy, few enough for memory."""
HOPELESS = frozenset({"missing", "empty", "unreadable", "no_fps", "fps_of_file"})
"""Reasons that another reader would only repeat."""

Job = tuple[str, float | None, tuple[ClipBounds, ...]]
"""(path, fps of a folder of frames, clips)"""


@dataclass(frozen=True)
class Decoded:
    """What became of one file: an outcome per clip, which reader delivered, and which failed before it and why."""

    outcomes: list[Frames | MediaError]
    reader: str | None
    failed: tuple[tuple[str, str], ...] = ()  # (reader, reason)
    openings: int = 1


class IsolatedDecoder:
    """`decode(jobs)` yields a `Decoded` per job, in order. Close it, or use it in a `with` block.

    workers: processes. timeout_seconds: for one file and one reader; beyond it the reason is `timeout`.
    recycle_after: groups of files after which a process is replaced, which bounds what decoders leak.
    memory_gib: most memory of one process (Linux); beyond it the reason is `memory`. A process that dies: `crashed`.
    plugins: modules with further readers and samplers, imported in every process.
    Raises RuntimeError inside a daemonic process (a worker of multiprocessing.Pool), which may not have children.
    """

    def __init__(
        self,
        policy: FramePolicy,
        *,
        workers: int = 1,
        timeout_seconds: float = 60.0,
        recycle_after: int = 500,
        memory_gib: float | None = 8.0,
        plugins: Sequence[str] = (),
    ):
        self._policy, self._workers, self._timeout = policy, workers, timeout_seconds
        self._readers = [dict(policy.reader)]
        if policy.fallback is not None and policy.fallback["name"] != policy.reader["name"]:
            self._readers.append(dict(policy.fallback))
        self._pool = WorkerPool(
            workers, recycle_after=recycle_after, memory_gib=memory_gib, initializer=_start_worker,
            initargs=(tuple(plugins),),
        )  # fmt: skip

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._pool.close()

    def decode(self, jobs: Iterable[Job]) -> Iterator[Decoded]:
        """Raises CluenetError when no file can be decoded at all: a plug-in or a library cannot be imported."""
        groups = _groups(jobs)
        ahead: deque[tuple[list[Job], Call | None]] = deque()
        while True:
            for group in islice(groups, GROUPS_AHEAD * self._workers - len(ahead)):
                ahead.append((group, self._submit(group, self._readers)))
            if not ahead:
                return
            yield from self._group(*ahead.popleft())

    def _group(self, group: list[Job], task: Call | None) -> Iterator[Decoded]:
        """The group's results; a worker hands a slow or large group back half-done, so the rest is asked for again."""
        while group:
            try:
                done = self._result(task)
            except (FutureTimeoutError, ProcessExpired, BrokenProcessPool, MemoryError):
                yield from map(self._alone, group)
                return
            group = group[len(done) :]
            task = self._submit(group, self._readers) if group else None  # decoded while what is done is used
            yield from done

    def _alone(self, job: Job) -> Decoded:
        """One file by itself, one reader after the other: now a failure is its own."""
        failed: tuple[tuple[str, str], ...] = ()
        for reader in self._readers:
            last = self._one_reader(job, reader)
            if last.reader is not None:
                return replace(last, failed=failed, openings=len(failed) + 1)
            failed += last.failed
            if failed[-1][1] in HOPELESS:
                break
        return replace(last, failed=failed, openings=len(failed))

    def _one_reader(self, job: Job, reader: Mapping[str, Any]) -> Decoded:
        for attempt in range(2):
            try:
                return self._result(self._submit([job], [reader]))[0]
            except FutureTimeoutError:
                error = MediaError("timeout", f"{job[0]}: not decoded within {self._timeout:g} s by {reader['name']}")
                break
            except MemoryError:
                error = MediaError("memory", f"{job[0]}: not enough memory to hand over what {reader['name']} decoded")
                break
            except (ProcessExpired, BrokenProcessPool) as cause:  # once: it may be the fault of the file before
                if attempt:
                    code = getattr(cause, "exitcode", None)
                    message = f"{job[0]}: the process decoding it with {reader['name']} died (exit code {code})"
                    error = MediaError("crashed", message)
        return _given_up(job, error, ((reader["name"], error.reason),))

    def _submit(self, group: Sequence[Job], readers: Sequence[Mapping[str, Any]]) -> Call | None:
        budget = self._timeout / 4  # a worker starts no further file after it
        limit = budget + self._timeout * len(readers)
        return self._pool.submit(
            _decode_group,
            (list(group), self._policy, list(readers), budget),
            timeout_seconds=limit if len(group) > 1 else self._timeout,
        )

    def _result(self, task: Call | None) -> list[Decoded]:
        """Raises FutureTimeoutError, ProcessExpired, BrokenProcessPool, MemoryError, CluenetError."""
        found: list[Decoded] = self._pool.result(task)
        return found


def _groups(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    rest = iter(jobs)
    while group := list(islice(rest, FILES_PER_TASK)):
        yield group


# ------------------------------------------------------------------------------------------------- in the worker

_start_error: CluenetError | None = None


def _start_worker(plugins: Sequence[str]) -> None:
    global _start_error
    try:
        load_components(plugins, only=("readers", "samplers"))
    except CluenetError as error:
        _start_error = error  # raised with the first file: a process that ends here would only be started again


def _decode_group(
    jobs: list[Job], policy: FramePolicy, readers: list[Mapping[str, Any]], budget_seconds: float
) -> list[Decoded]:
    """The results of the first files of a group, at least one."""
    if _start_error is not None:
        raise _start_error
    started, done, held = time.monotonic(), [], 0
    for job in jobs:
        one = _decode_one(job, policy, readers)
        done.append(one)
        num_bytes = sum(frames.frames_THWC.nbytes for frames in one.outcomes if isinstance(frames, Frames))
        held += num_bytes
        if held + num_bytes > BYTES_PER_RESULT or time.monotonic() - started > budget_seconds:
            break
    return done


def _decode_one(job: Job, policy: FramePolicy, readers: list[Mapping[str, Any]]) -> Decoded:
    path, fps, clips = job
    failed: tuple[tuple[str, str], ...] = ()
    for reader in readers:
        try:
            outcomes = decode_clips(path, fps, clips, policy, reader=reader)
            return Decoded(outcomes, reader["name"], failed, len(failed) + 1)
        except MediaError as media_error:
            error = media_error
        except CluenetError:
            raise
        except MemoryError as cause:
            error = MediaError("memory", f"{path}: not enough memory to decode it with {reader['name']} ({cause})")
        except Exception as cause:
            what = f"{type(cause).__name__}: {cause}"
            error = MediaError("internal", f"{path}: a mistake in the reader {reader['name']} or the sampler: {what}")
        failed += ((reader["name"], error.reason),)
        if error.reason in HOPELESS:
            break
    return _given_up(job, error, failed)


def _given_up(job: Job, error: MediaError, failed: tuple[tuple[str, str], ...]) -> Decoded:
    return Decoded([error] * len(job[2]), None, failed, openings=len(failed))
