"""What a worker does with one batch of files: decode, encode, write the clips part with its account. Ray-free.

The account of a part, kept in its footer and returned to the driver:

    {"files": [{"path", "fps", "sha256", "openings", "clips": [a clip, ...]}]}
    a clip:   {"start_seconds", "end_seconds", "key", "bytes", "reader", "failed": [[reader, reason], ...]}       ready
              {"start_seconds", "end_seconds", "reason", "detail", "reader"[, "timeout_seconds"]}             not ready

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
from cluenet.isolation import FileResult, IsolatedDecoder
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
        if account is not None and not can_be_retried(account, self._recipe.data.decode_timeout_seconds):
            return {**account, "part": part.name, "reused": True}
        return {**self._make(part, batch), "part": part.name, "reused": False}

    def close(self) -> None:
        """End the decoding processes."""
        if self._decoder is not None:
            self._decoder.close()

    def _make(self, part: Path, batch: Batch) -> Account:
        with atomic_file(part) as file:
            writer = ClipWriter(file)
            account = {"files": [self._file(writer, job, result) for job, result in self._decoded(batch)]}
            writer.close(account)
        return account

    def _decoded(self, batch: Batch) -> Iterator[tuple[FileJob, FileResult]]:
        if self._decoder is None:
            self._decoder = IsolatedDecoder(self._policy, timeout_seconds=self._recipe.data.decode_timeout_seconds)
        return zip(batch.jobs, self._decoder.decode(batch.jobs), strict=True)

    def _file(self, writer: ClipWriter, job: FileJob, result: FileResult) -> dict[str, Any]:
        clips: list[Frames | MediaError] = list(result.clips)
        sha256 = ""
        if any(isinstance(clip, Frames) for clip in clips):
            try:
                sha256 = sha256_of(Path(job.path))
            except MediaError as error:
                clips = [error] * len(clips)
        outcomes = zip(job.spans, clips, strict=True)
        rows = [self._clip(writer, job, span, clip, result, sha256) for span, clip in outcomes]
        return {"path": job.path, "fps": job.fps, "sha256": sha256, "openings": result.openings, "clips": rows}

    def _clip(
        self, writer: ClipWriter, job: FileJob, span: Span, clip: Frames | MediaError, result: FileResult, sha256: str
    ) -> dict[str, Any]:
        if isinstance(clip, MediaError):
            return {**asdict(span), **self._failure(clip, result)}
        key = content_hash(sha256, job.fps, asdict(span), self._policy_hash)
        blob, times = encode_frames(clip, self._policy.codec), clip.seconds_T.tolist()
        bounds = (span.start_seconds, span.end_seconds, clip.duration_seconds)
        writer.write(PreparedClip(key, job.path, job.fps, sha256, *bounds, result.reader, blob, times))
        return {**asdict(span), "key": key, "bytes": len(blob), "reader": result.reader, "failed": result.failed}

    def _failure(self, error: MediaError, result: FileResult) -> dict[str, Any]:
        limit = {"timeout_seconds": self._recipe.data.decode_timeout_seconds} if error.reason == "timeout" else {}
        return {"reason": error.reason, "detail": error.message, "reader": result.reader, **limit}


def can_be_retried(account: Mapping[str, Any], timeout_seconds: float) -> bool:
    """Whether a clip failed for a cause that is gone: a missing file that is there now, a time limit that was raised."""
    return any(_cause_is_gone(file["path"], clip, timeout_seconds) for file in account["files"] for clip in file["clips"])


def _cause_is_gone(path: str, clip: Mapping[str, Any], timeout_seconds: float) -> bool:
    if clip.get("reason") == "missing":
        return Path(path).exists()
    return clip.get("reason") == "timeout" and clip["timeout_seconds"] < timeout_seconds


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
