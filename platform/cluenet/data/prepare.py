"""Prepares datasets with Ray Data: rows in, one folder of decoded clips and questions out (see `cluenet.prepared`).

    rows -> clips, grouped by file -> batches of files -> workers write one part each -> questions, quarantine, manifest

Frames never leave the worker that decoded them: what comes back to the driver is the account of each part. A part on disk
is finished, so an interrupted run goes on where it stopped, and two runs at once write the same files twice at worst.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import Any

import cluenet
from cluenet import storage
from cluenet.data.accounting import QuestionAccounts, VideoAccounts, check
from cluenet.data.batches import Batch, Clips, Span, batches
from cluenet.data.parts import Account
from cluenet.data.rows import Rows, labelled_rows
from cluenet.data.workers import accounts_of
from cluenet.decoding import FramePolicy
from cluenet.errors import DataError, StorageError
from cluenet.folders import finished, read_manifest, storage_errors, write_manifest
from cluenet.prepared import (
    FORMAT,
    folder_of,
    read_frames,
    remove_leftovers,
    sources_of,
    store_folder,
    write_index,
    write_quarantine,
    write_questions,
)
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.records import Example, Quarantined
from cluenet.registry import ComponentConfig

ROWS_BETWEEN_UPDATES = 500

Outcome = str | Mapping[str, Any]
"""Of a clip: its key, or what the part's account says of one that could not be made. Most of the driver's memory is this."""
Outcomes = dict[tuple[str, float | None, Span], Outcome]
"""By (path, fps, span)."""
Ready = Iterator[tuple[Example, str]]
"""Examples whose clip is ready, in the dataset's order, each with the clip's key."""

log = logging.getLogger("cluenet")


def prepare(recipe: Recipe, dataset: ComponentConfig, *, progress: type[Progress] = Progress) -> Path:
    """The finished folder of one dataset entry; made, or completed, unless it is there.

    Raises DataError (unreadable dataset, repeated ids, no usable question), StorageError (full disk, lost connection; what is
    done is kept), ClusterError.
    """
    folder = folder_of(recipe, dataset)
    if finished(folder):
        _tell_what_can_be_retried(folder)
        return folder
    storage.require_writable(folder)
    with Rows(folder) as rows:
        run = _Run(recipe, dataset, folder, rows)
        run.read(progress)
        run.decode(progress)
        run.finish(progress)
    return folder


class _Run:
    """One pass from rows to manifest."""

    def __init__(self, recipe: Recipe, dataset: ComponentConfig, folder: Path, rows: Rows):
        self.recipe, self.dataset, self.folder, self.rows = recipe, dataset, folder, rows
        self.clips = Clips()
        self.outcomes: Outcomes = {}
        self.places: dict[str, tuple[str, int]] = {}
        self.videos = VideoAccounts()
        self.seconds: dict[str, float] = {}
        self.clue_source = recipe.data.clue_source.build()

    @property
    def title(self) -> str:
        return f"{self.dataset.name} {self.dataset.split}"  # type: ignore[attr-defined]

    def read(self, progress: type[Progress]) -> None:
        """Rows to disk, their clips to memory."""
        started = time.monotonic()
        with progress(f"Reading {self.title}", total=None, unit="questions") as display:
            for row in labelled_rows(self.dataset.build(), self.clue_source):
                self.rows.append(row)
                if isinstance(row, Example):
                    self.clips.add(row.video)
                if len(self.rows) % ROWS_BETWEEN_UPDATES == 0:
                    display.advance(ROWS_BETWEEN_UPDATES)
            display.advance(len(self.rows) % ROWS_BETWEEN_UPDATES)
        self.seconds["read"] = time.monotonic() - started

    def decode(self, progress: type[Progress]) -> None:
        """Parts to disk, their accounts to memory."""
        started = time.monotonic()
        work = list(batches(self.clips.jobs()))
        total = sum(len(batch.jobs) for batch in work)
        with progress(f"Decoding {self.title}", total=total, unit="videos") as display:
            for account in accounts_of(work, self.recipe, self.folder) if work else ():
                self._add(account)
                display.advance(len(account["files"]), quarantined=self.videos.failed)
        self._all_there(work)
        self.seconds["decode"] = time.monotonic() - started

    def _add(self, account: Account) -> None:
        self.videos.add(account)
        group = 0
        for file in account["files"]:
            for clip in file["clips"]:
                key: str | None = clip.get("key")
                span = Span(clip["start_seconds"], clip["end_seconds"])
                self.outcomes[file["path"], file["fps"], span] = clip if key is None else key
                if key is not None:
                    place = (account["part"], group)
                    self.places[key] = min(place, self.places.get(key, place))
                    group += 1

    def _all_there(self, work: list[Batch]) -> None:
        there = {part.name for part in storage.sizes(self.folder / "clips", "part-*")}
        lost = [batch.part for batch in work if batch.part not in there]
        if lost:
            raise StorageError(
                f"{self.folder}: workers wrote {len(work)} parts, {len(lost)} of them cannot be seen from here, such as "
                f"{lost[0]}. Set `store=` to a folder that all machines of the cluster share, such as NFS, or to a URI such as "
                "s3://bucket/store."
            )
        remove_leftovers(self.folder, {batch.part for batch in work})

    def finish(self, progress: type[Progress]) -> None:
        """Questions, quarantine, index; then, when the accounts add up, the manifest."""
        started = time.monotonic()
        questions = QuestionAccounts()
        quarantined: list[Quarantined] = []
        ready = self._ready(questions, quarantined)
        write_questions(self.folder, self._counted(self._seen(ready, progress), questions))
        write_quarantine(self.folder, quarantined)
        if not questions.ready:
            raise DataError(_nothing_ready(self.folder, self.title, quarantined, questions.reasons))
        write_index(self.folder, self.places)
        accounts = {**questions.to_dict(len(self.rows)), **self.videos.to_dict(len(self.places))}
        check(self.folder, accounts, self.places, len(self.clips))
        self.seconds["write"] = time.monotonic() - started
        if not finished(self.folder):  # another process may have been faster, with the same content
            write_manifest(self.folder, self._manifest(accounts))

    def _ready(self, accounts: QuestionAccounts, quarantined: list[Quarantined]) -> Ready:
        for number, row in enumerate(self.rows):
            if isinstance(row, Example):
                clip = self._clip(row)
                if isinstance(clip, str):
                    yield row, clip
                    continue
                row = _quarantined(row, clip)
            accounts.add_quarantined(row)
            quarantined.append(replace(row, row=number))

    def _seen(self, ready: Ready, progress: type[Progress]) -> Ready:
        """With the clues of a source that looks at the frames first."""
        if not self.clue_source.sees_frames:
            yield from ready
            return
        pairs, keys = tee(ready)
        frames = ((example, read_frames(self.folder, *self.places[key])) for example, key in pairs)
        folder = store_folder(self.recipe) / "clue_sources" / self.recipe.data.clue_source.name
        with progress(f"Looking for clues in {self.title}", total=self._num_ready(), unit="questions") as display:
            for example, (_, key) in zip(self.clue_source.attach_seen(frames, folder), keys, strict=True):
                display.advance()
                yield example, key

    def _num_ready(self) -> int:
        return sum(isinstance(self._clip(row), str) for row in self.rows if isinstance(row, Example))

    def _counted(self, ready: Ready, accounts: QuestionAccounts) -> Ready:
        for example, key in ready:
            accounts.add_ready(example)
            yield example, key

    def _clip(self, example: Example) -> Outcome:
        video = example.video
        return self.outcomes[video.path, video.fps, Span(video.start_seconds, video.end_seconds)]

    def _manifest(self, accounts: dict[str, Any]) -> dict[str, Any]:
        """`run` is about this run; everything else depends on the data alone."""
        data = self.recipe.data
        policy = FramePolicy.from_section(data)
        return {
            "format": FORMAT,
            "step": "prepare",
            "address": self.folder.name,
            "versions": {"cluenet": cluenet.__version__},
            "dataset": self.dataset.to_dict(),
            "clue_source": data.clue_source.to_dict(),
            "clue_source_summary": self.clue_source.summary(),
            "sources": sources_of(self.recipe, self.dataset),
            "policy": policy.to_dict(),
            "policy_fingerprint": policy.fingerprint(),
            **accounts,
            "run": {
                "parts": dict(self.videos.parts),
                "files": dict(self.videos.files),
                "clue_source": self.clue_source.costs(),
                "seconds": self._rounded(),
            },
        }

    def _rounded(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in self.seconds.items()}


def _quarantined(row: Example, clip: Mapping[str, Any]) -> Quarantined:
    why, hidden = (clip["reason"], clip["detail"], clip["reader"]), row.answer is None
    return Quarantined(row.id, row.dataset, row.video.path, *why, row.type, row.meta, hidden=hidden)


def _nothing_ready(folder: Path, title: str, quarantined: list[Quarantined], reasons: Mapping[str, int]) -> str:
    if not quarantined:
        return f"dataset {title}: there are no questions at all. Check the dataset's path, `split` and `max_samples`."
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    first = quarantined[0]
    return (
        f"dataset {title}: none of {len(quarantined)} questions can be used ({counts}). The first: {first.id}: {first.path}: "
        f"{first.detail}. All of them are listed in {folder / 'quarantine.jsonl'}. Correct the videos' paths or files and "
        "run the same command again."
    )


def _tell_what_can_be_retried(folder: Path) -> None:
    """A finished folder does not change by itself: its address would then stand for two contents. So say what could."""
    if not read_manifest(folder).get("quarantined", {}).get("reasons", {}).get("missing"):
        return
    with storage_errors(folder), storage.bring(folder / "quarantine.jsonl").open(encoding="utf-8") as file:
        rows = map(json.loads, file)
        found = {row["path"] for row in rows if row["reason"] == "missing" and Path(row["path"]).exists()}
    if found:
        log.warning(
            "%s: %d videos that were missing when it was prepared are there now, such as %s. To use them delete %s and the "
            "run folders made from it, and run again; what was decoded is kept.",
            folder, len(found), min(found), storage.shown(folder / "manifest.json"),
        )  # fmt: skip
