"""The files behind the questions: there or not, readable or not, and what they can be recognised by."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from cluenet.config.data import DataSection, Size
from cluenet.contracts import Dataset
from cluenet.data.batches import FileJob
from cluenet.data.parts import sha256_of
from cluenet.decoding import FramePolicy
from cluenet.errors import MediaError
from cluenet.inspection.facts import SHOWN, SplitFacts
from cluenet.isolation import IsolatedDecoder, Job
from cluenet.overlap import Marks
from cluenet.progress import Progress
from cluenet.registry import register

Hashes = Mapping[str, str]
"""{path: sha256}"""


def presence(facts: SplitFacts) -> dict[str, Any]:
    """How many files the questions name, and which are not there."""
    paths = facts.paths()
    missing = [path for path in paths if not Path(path).exists()]
    return {"files": len(paths), "missing": len(missing), "first_missing": missing[:SHOWN]}


def readability(facts: SplitFacts, title: str, progress: type[Progress]) -> dict[str, Any]:
    """Every file that is there is opened, and a frame of each clip decoded, with a recipe's default readers, in processes of
    their own with a recipe's default time limit."""
    jobs = [job for job in facts.clips.jobs() if Path(job.path).exists()]
    reasons: Counter[str] = Counter()
    first: dict[str, str] = {}
    with _decoder() as decoder, progress(f"Opening {title}", total=len(jobs), unit="videos") as display:
        for decoded in decoder.decode(map(_whole_job, jobs)):
            for error in {one.reason: one for one in decoded.outcomes if isinstance(one, MediaError)}.values():
                reasons[error.reason] += 1
                first.setdefault(error.reason, error.message)
            display.advance()
    return {reason: {"files": count, "first": first[reason]} for reason, count in reasons.most_common()}


def _decoder() -> IsolatedDecoder:
    data = DataSection(sampler=register.sampler.parse({"name": "uniform", "frames": 1}), size=Size(height=32, width=32))
    return IsolatedDecoder(
        FramePolicy.from_section(data), workers=os.cpu_count() or 1, timeout_seconds=data.decode_timeout_seconds
    )


def _whole_job(job: FileJob) -> Job:
    return job.path, job.fps, tuple((span.start_seconds, span.end_seconds) for span in job.spans)


def hashes(paths: Iterable[str], title: str, progress: type[Progress]) -> Hashes:
    """Of the files that can be read."""
    there, found = [path for path in paths if Path(path).exists()], {}
    with progress(f"Hashing {title}", total=len(there), unit="videos") as display:
        for path in there:
            try:
                found[path] = sha256_of(Path(path))
            except MediaError:  # `readability` says why
                continue
            finally:
                display.advance()
    return found


def marks_of(dataset: type[Dataset], paths: Sequence[str], root: str, known: Hashes) -> dict[str, Marks]:
    """root: the folder that the paths are told from."""
    return {path: Marks(known.get(path), dataset.source_id(path), _below(path, root)) for path in paths}


def root_of(paths: Sequence[str]) -> str:
    """The deepest folder that holds all of them."""
    return os.path.commonpath([str(PurePath(path).parent) for path in paths]) if paths else ""


def _below(path: str, root: str) -> str:
    return PurePath(path).relative_to(root).as_posix()
