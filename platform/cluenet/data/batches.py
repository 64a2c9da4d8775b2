"""From questions to units of work: clips grouped by file, files grouped into batches. Pure, so that a rerun makes the
same batches and finds their parts on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice

from cluenet.records import VideoRef, content_hash

FILES_PER_BATCH = 16
CLIPS_PER_BATCH = 128
"""Bounds a worker's memory: 128 clips of 16 frames of 448 x 448 are 1.2 GB. A file with more clips is opened again."""


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """A clip within its file."""

    start_seconds: float
    end_seconds: float | None

    @property
    def order(self) -> tuple[float, float]:
        return self.start_seconds, float("inf") if self.end_seconds is None else self.end_seconds


@dataclass(frozen=True, slots=True)
class FileJob:
    """One opening of a video: all clips that questions ask for."""

    path: str
    fps: float | None
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Batch:
    """What one worker does at a time; its result is one clips part."""

    number: int
    jobs: tuple[FileJob, ...]

    @property
    def part(self) -> str:
        """Name of the part's file, made from what is asked for."""
        return f"part-{self.number:05d}-{content_hash([asdict(job) for job in self.jobs], length=12)}.parquet"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Batch:
        value = json.loads(text)
        jobs = (FileJob(j["path"], j["fps"], tuple(Span(**span) for span in j["spans"])) for j in value["jobs"])
        return cls(value["number"], tuple(jobs))


class Clips:
    """The distinct clips of the videos added."""

    def __init__(self) -> None:
        self._spans: dict[tuple[str, float | None], set[Span]] = {}

    def add(self, video: VideoRef) -> None:
        self._spans.setdefault((video.path, video.fps), set()).add(Span(video.start_seconds, video.end_seconds))

    def jobs(self) -> Iterator[FileJob]:
        """Sorted by path; a file comes twice only when it has more than CLIPS_PER_BATCH clips."""
        for path, fps in sorted(self._spans, key=lambda file: (file[0], file[1] or 0.0)):
            spans = iter(sorted(self._spans[path, fps], key=lambda span: span.order))
            while chunk := tuple(islice(spans, CLIPS_PER_BATCH)):
                yield FileJob(path, fps, chunk)

    def __len__(self) -> int:
        return sum(map(len, self._spans.values()))


def batches(jobs: Iterable[FileJob]) -> Iterator[Batch]:
    """Neighbouring jobs together: at most FILES_PER_BATCH files and CLIPS_PER_BATCH clips."""
    waiting: list[FileJob] = []
    number = clips = 0
    for job in jobs:
        if waiting and (len(waiting) == FILES_PER_BATCH or clips + len(job.spans) > CLIPS_PER_BATCH):
            yield Batch(number, tuple(waiting))
            number, waiting, clips = number + 1, [], 0
        waiting.append(job)
        clips += len(job.spans)
    if waiting:
        yield Batch(number, tuple(waiting))
