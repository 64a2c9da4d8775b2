"""Exact accounts of a prepared dataset: every row that went in is ready or quarantined, and every number is counted from
what happened, then compared with what lies on disk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluenet import storage
from cluenet.records import Example, Quarantined


class QuestionAccounts:
    """What became of the dataset's rows."""

    def __init__(self) -> None:
        self.ready = self.quarantined = 0
        self.types: Counter[str] = Counter()
        self.options: Counter[int] = Counter()
        self.labels = dict.fromkeys(("answer", "chain", "clues", "times", "boxes", "concepts"), 0)
        self.reasons: Counter[str] = Counter()
        self.readers: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add_ready(self, example: Example) -> None:
        self.ready += 1
        self.types[example.type] += 1
        self.options[len(example.options)] += 1
        for name, has in labels_of(example).items():
            self.labels[name] += has

    def add_quarantined(self, row: Quarantined) -> None:
        self.quarantined += 1
        self.reasons[row.reason] += 1
        if row.reader is not None:
            self.readers[row.reader][row.reason] += 1

    def to_dict(self, rows_in: int) -> dict[str, Any]:
        """`labels`: of how many ready questions a loss term could be taught; `options`: how many have so many."""
        return {
            "rows": {"in": rows_in, "ready": self.ready, "quarantined": self.quarantined},
            "types": dict(sorted(self.types.items())),
            "options": {str(number): count for number, count in sorted(self.options.items())},
            "labels": self.labels,
            "quarantined": {
                "reasons": dict(self.reasons.most_common()),
                "readers": _nested(self.readers),
            },
        }


def _nested(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(counter.items())) for name, counter in sorted(counts.items())}


def labels_of(example: Example) -> dict[str, bool]:
    """What an example can supervise. `clues` holds too where it is labelled that no clue is needed."""
    clues = example.clues or ()
    return {
        "answer": example.answer is not None,
        "chain": example.chain is not None,
        "clues": example.clues is not None,
        "times": any(clue.start_seconds is not None for clue in clues),
        "boxes": any(clue.boxes for clue in clues),
        "concepts": any(clue.concepts for clue in clues),
    }


class VideoAccounts:
    """What became of the files, summed over the accounts of all parts (see `data.parts`)."""

    def __init__(self) -> None:
        self._ready: dict[tuple[str, float | None], bool] = {}
        self._clips_per_file: Counter[tuple[str, float | None]] = Counter()
        self.openings = self.fallbacks = self.bytes = self.ready = self.failed = 0
        self.failures: Counter[str] = Counter()
        self.readers: Counter[str] = Counter()
        self.failed_readers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.parts = Counter({"decoded": 0, "reused": 0})  # in this run
        self.files = Counter({"decoded": 0, "reused": 0})

    def add(self, account: Mapping[str, Any]) -> None:
        how = "reused" if account["reused"] else "decoded"
        self.parts[how] += 1
        self.files[how] += len(account["files"])
        for file in account["files"]:
            self._add_file(file)

    def _add_file(self, file: Mapping[str, Any]) -> None:
        name = file["path"], file["fps"]
        good = [clip for clip in file["clips"] if "key" in clip]
        self._ready[name] = bool(good) or self._ready.get(name, False)
        self._clips_per_file[name] += len(file["clips"])
        self.openings += file["openings"]
        self.bytes += sum(clip["bytes"] for clip in good)
        self.ready += len(good)
        self.failed += len(file["clips"]) - len(good)
        for clip in file["clips"]:
            if "key" in clip:
                self.readers[clip["reader"]] += 1
                self.fallbacks += bool(clip["failed"])
            else:
                self.failures[clip["reason"]] += 1
            for reader, reason in clip["failed"]:
                self.failed_readers[reader][reason] += 1

    def to_dict(self, distinct: int) -> dict[str, Any]:
        """`distinct`: clips by content; the same content under two paths is one of them."""
        files = len(self._ready)
        decoded = sum(self._ready.values())
        return {
            "videos": {"files": files, "decoded": decoded, "failed": files - decoded},
            "clips": {
                "asked": self.ready + self.failed,
                "ready": self.ready,
                "failed": self.failed,
                "distinct": distinct,
                "reasons": dict(self.failures.most_common()),
                "per_file": {str(n): c for n, c in sorted(Counter(self._clips_per_file.values()).items())},
            },
            "decoding": {
                "openings": self.openings,
                "readers": dict(sorted(self.readers.items())),
                "failed_readers": _nested(self.failed_readers),
                "by_fallback": self.fallbacks,
                "bytes": self.bytes,
            },
        }


def check(folder: Path, accounts: Mapping[str, Any], places: Mapping[str, tuple[str, int]], clips: int) -> None:
    """Compare the accounts with the folder. Raises RuntimeError: a difference is a bug of ours, never to be finished.

    clips: how many clips the questions ask for. places: the index.
    """
    rows, count = accounts["rows"], accounts["clips"]
    stored = sum(
        pq.read_metadata(storage.bring(part)).num_rows for part in storage.sizes(folder / "questions", "part-*.parquet")
    )
    with (folder / "quarantine.jsonl").open("rb") as file:
        lines = sum(1 for _ in file)
    equal = {
        "rows in = ready + quarantined": (rows["in"], rows["ready"] + rows["quarantined"]),
        "ready = rows of questions/": (rows["ready"], stored),
        "quarantined = lines of quarantine.jsonl": (rows["quarantined"], lines),
        "quarantined = sum of reasons": (rows["quarantined"], sum(accounts["quarantined"]["reasons"].values())),
        "ready = sum of types": (rows["ready"], sum(accounts["types"].values())),
        "clips asked = ready + failed": (clips, count["ready"] + count["failed"]),
        "distinct clips = rows of the index": (count["distinct"], len(places)),
    }
    wrong = [f"{name}: {left} and {right}" for name, (left, right) in equal.items() if left != right]
    if wrong:
        raise RuntimeError(f"{folder}: the accounts do not add up: {'; '.join(wrong)}")
