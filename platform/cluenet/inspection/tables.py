"""What `cluenet inspect` prints: one table per subject, those without a row left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

Row = tuple[Any, ...]
Report = Mapping[str, Any]


def tables(report: Report) -> Group:
    """report: of `report.inspect`."""
    splits = report["splits"]
    found = [
        _table("Rows", ("split", "rows", "usable", "quarantined", "answer hidden", "ids repeated", "options equal"), _rows(splits)),
        _table("Quarantined", ("split", "reason", "rows", "first"), _reasons(splits)),
        _table("Against the official counts", ("split", "of", "official", "found", "difference"), _official(splits)),
        _table("Types", ("split", "type", "rows", "%"), _types(splits)),
        _table("Where right answers stand (p: chi-square test that all places are equally likely)",
               ("split", "options", "rows at place 1, 2, ...", "p"), _positions(splits)),
        _table("What needs no video, % right", ("split", "rows", "guessing", "same place", "same words"), _constants(splits)),
        _table("Videos", ("split", "files", "missing", "first missing"), _videos(splits)),
        _table("Videos that cannot be read", ("split", "reason", "files", "first"), _unreadable(splits)),
        _table("Clues, questions with", ("split", "clues", "times", "boxes", "concepts", "chain", "clues in all"), _labels(splits)),
        _table("Splits that are not there", ("split", "why"), report["absent"].items()),
        _table("Shared videos", ("of", "with", "videos", "by", "such as"), _shared(report["shared"])),
    ]  # fmt: skip
    return Group(*(table for table in found if table is not None))


def _table(title: str, columns: Iterable[str], rows: Iterable[Row]) -> Table | None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    return table if table.row_count else None


def _rows(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        counts = (one[key] for key in ("rows", "usable", "quarantined", "hidden_answers"))
        yield name, *counts, one["repeated_ids"]["count"], _count(one["equal_options"])


def _count(few: Report) -> str:
    return f"{few['count']} ({few['first'][0]}, ...)" if few["count"] else "0"


def _reasons(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        yield from ((name, reason, found["rows"], found["first"]) for reason, found in one["reasons"].items())


def _official(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        for what, count in one["official"].items():
            yield name, what, count["official"], count["found"], f"{count['found'] - count['official']:+d}"


def _types(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        yield from ((name, kind, rows, _percent(rows / one["rows"])) for kind, rows in one["types"].items())


def _positions(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        for size, row in (one["answers"] or {"positions": {}})["positions"].items():
            yield name, size, " ".join(map(str, row["counts"])), f"{row['p']:.3g}"


def _constants(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        if found := one["answers"]:
            place, text = found["constant_position"], found["constant_text"]
            yield (
                name, found["known"], _percent(found["chance"]), f"{_percent(place['accuracy'])} (place {place['position'] + 1})",
                f"{_percent(text['accuracy'])} ({text['text']})",
            )  # fmt: skip


def _videos(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        found = one["videos"]
        yield name, found["files"], found["missing"], (found["first_missing"] or ["-"])[0]


def _unreadable(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        for reason, found in one["videos"].get("unreadable", {}).items():
            yield name, reason, found["files"], found["first"]


def _labels(splits: Report) -> Iterable[Row]:
    for name, one in splits.items():
        labels = one["labels"]
        if labels.get("clues"):
            yield (
                name,
                *(labels.get(key, 0) for key in ("clues", "times", "boxes", "concepts", "chain", "clues in all")),
            )


def _shared(shared: Iterable[Report]) -> Iterable[Row]:
    for one in shared:
        by = ", ".join(f"{way} {count}" for way, count in one["by"].items())
        yield (
            f"{one['first']} ({one['of'][0]})",
            f"{one['second']} ({one['of'][1]})",
            one["videos"],
            by,
            one["examples"][0],
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
