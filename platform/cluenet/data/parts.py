"""What a worker does with one batch of files: decode, encode, write the clips part with its account. Ray-free.

The account of a part, kept in its footer and returned to the driver:

    {"files": [{"path", "fps", "state", "sha256", "openings", "clips": [a clip, ...]}]}
    a clip:   {"start_seconds", "end_seconds", "failed": [[reader, reason], ...],       whether it is ready or not
               "key", "bytes", "reader"}                                                ready: who delivered
               "reason", "detail", "reader"[, "timeout_seconds"]}                       not ready: who failed last

Ready clips have the row groups 0, 1, 2, ... of the part in this order. Nothing in it depends on when or where it was made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluenet.data.batches import Batch, FileJob, Span
from cluenet.decoding import FramePolicy, encode_frames
from cluenet.errors import MediaError
from cluenet.isolation import Decoded, IsolatedDecoder, Job
from cluenet.prepared import ClipWriter, PreparedClip, atomic_file, read_account
from cluenet.recipe import Recipe
from cluenet.records import Frames, content_hash

Account = dict[str, Any]


class PartMaker:
    """Makes the parts of one prepared folder. Decoding processes start with the first part that is not there yet."""

    def __init__(self, recipe: Recipe, folder: Path):
        self._recipe, self._folder = recipe, folder
        self._policy = FramePolicy.from_section(recipe.data)
        self._policy_hash = self._policy.fingerprint()
        self._decoder: IsolatedDecoder | None = None

    def account(self, batch: Batch) -> Account:
        """The account of the batch's part, plus `part` and `reused`; the part is made unless it is there.

        Raises StorageError when it cannot be written.
        """
        part = self._folder / "clips" / batch.part
        account = read_account(part)
        if account is not None and is_current(account, self._recipe.data.decode_timeout_seconds):
            return {**account, "part": part.name, "reused": True}
        return {**self._make(part, batch), "part": part.name, "reused": False}

    def close(self) -> None:
        """End the decoding processes."""
        if self._decoder is not None:
            self._decoder.close()

    def _make(self, part: Path, batch: Batch) -> Account:
        with atomic_file(part) as file:
            writer = ClipWriter(file)
            try:
                states = [state_of(job.path) for job in batch.jobs]  # before they are read
                files = zip(batch.jobs, self._decoded(batch), states, strict=True)
                account = {"files": [self._file(writer, *file) for file in files]}
                writer.close(account)
            except BaseException:
                writer.abandon()
                raise
        return account

    def _decoded(self, batch: Batch) -> Iterator[Decoded]:
        if self._decoder is None:
            data = self._recipe.data
            plugins, limit = self._recipe.plugins, data.decode_timeout_seconds
            self._decoder = IsolatedDecoder(self._policy, timeout_seconds=limit, plugins=plugins)
        return self._decoder.decode(map(_bounds, batch.jobs))

    def _file(self, writer: ClipWriter, job: FileJob, decoded: Decoded, state: list[int] | None) -> dict[str, Any]:
        outcomes, sha256 = decoded.outcomes, ""
        if decoded.reader is not None:
            try:
                sha256 = sha256_of(Path(job.path))
            except MediaError as error:
                outcomes = [error] * len(job.spans)
        clips = []
        for span, outcome in zip(job.spans, outcomes, strict=True):
            if isinstance(outcome, MediaError):
                clip = self._failure(outcome, decoded)
            else:
                clip = self._ready(writer, job, span, outcome, decoded, sha256)
            clips.append({**asdict(span), **clip, "failed": [list(pair) for pair in decoded.failed]})
        name = {"path": job.path, "fps": job.fps, "state": state, "sha256": sha256}
        return {**name, "openings": decoded.openings, "clips": clips}

    def _ready(
        self, writer: ClipWriter, job: FileJob, span: Span, frames: Frames, decoded: Decoded, sha256: str
    ) -> dict[str, Any]:
        clip = PreparedClip(
            key=content_hash(sha256, job.fps, asdict(span), self._policy_hash),
            path=job.path,
            fps=job.fps,
            sha256=sha256,
            start_seconds=span.start_seconds,
            end_seconds=span.end_seconds,
            duration_seconds=frames.duration_seconds,
            reader=str(decoded.reader),
            frames=encode_frames(frames, self._policy.codec),
            seconds=frames.seconds_T.tolist(),
        )
        writer.write(clip)
        return {"key": clip.key, "bytes": len(clip.frames), "reader": clip.reader}

    def _failure(self, error: MediaError, decoded: Decoded) -> dict[str, Any]:
        tried = [name for name, _ in decoded.failed]
        timed_out = any(reason == "timeout" for _, reason in decoded.failed)
        limit = {"timeout_seconds": self._recipe.data.decode_timeout_seconds} if timed_out else {}
        reader = decoded.reader or (tried[-1] if tried else None)
        return {"reason": error.reason, "detail": error.message, "reader": reader, **limit}


def _bounds(job: FileJob) -> Job:
    return job.path, job.fps, tuple((span.start_seconds, span.end_seconds) for span in job.spans)


def is_current(account: Mapping[str, Any], timeout_seconds: float) -> bool:
    """Whether making the part again would give the same: no file changed, came or went, and no time limit was raised."""
    clips = (clip for file in account["files"] for clip in file["clips"])
    return all(file["state"] == state_of(file["path"]) for file in account["files"]) and not any(
        clip.get("timeout_seconds", timeout_seconds) < timeout_seconds for clip in clips
    )


def state_of(path: str) -> list[int] | None:
    """Size in bytes and time of the last change in nanoseconds; None where nothing is."""
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content; of a folder of frames: of the names and digests of its files.

    Read in blocks, whatever the size. Raises MediaError with reason `unreadable`.
    """
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        return content_hash([[name, sha256_of(path / name)] for name in names], length=64)
    except OSError as error:
        raise MediaError("unreadable", f"{path}: {error.strerror or error}") from error
