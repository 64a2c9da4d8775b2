"""What is counted over the rows of one split. No file but the annotations is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from cluenet.data.accounting import labels_of
from cluenet.data.batches import Clips
from cluenet.metrics.accuracy import chance
from cluenet.records import Example, Quarantined

UNKNOWN = "(unknown)"
SHOWN = 5


class SplitFacts:
    """Filled row by row with `add`; memory holds ids and videos, not rows."""

    def __init__(self) -> None:
        self.rows = self.usable = self.hidden = 0
        self.reasons: Counter[str] = Counter()
        self.details: dict[str, str] = {}  # of the first row of each reason
        self.types: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.equal_options: list[str] = []
        self.positions: dict[int, Counter[int]] = {}  # number of options -> place of the right one -> rows
        self.answers: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.clips = Clips()

    def add(self, row: Example | Quarantined) -> None:
        self.rows += 1
        self.ids[row.id] += 1
        self.types[row.type or UNKNOWN] += 1
        if isinstance(row, Quarantined):
            self.reasons[row.reason] += 1
            self.details.setdefault(row.reason, f"{PurePath(row.path).name}: {row.id}: {row.detail}")
        else:
            self._add_usable(row)

    def _add_usable(self, row: Example) -> None:
        self.usable += 1
        self.hidden += row.answer is None
        self.clips.add(row.video)
        self.labels.update(name for name, has in labels_of(row).items() if has)
        self.labels["clues in all"] += len(row.clues or ())
        if len({" ".join(option.split()).casefold() for option in row.options}) < len(row.options):
            self.equal_options.append(row.id)
        if isinstance(row.answer, int):
            self.positions.setdefault(len(row.options), Counter())[row.answer] += 1
            self.answers[str(row.answer_text)] += 1

    @property
    def repeated_ids(self) -> list[str]:
        return [row_id for row_id, count in self.ids.items() if count > 1]

    def paths(self) -> list[str]:
        return sorted({job.path for job in self.clips.jobs()})

    def to_dict(self, official: Mapping[str, int]) -> dict[str, Any]:
        """official: the counts that the dataset's authors state for this split."""
        return {
            "rows": self.rows, "usable": self.usable, "quarantined": self.rows - self.usable, "hidden_answers": self.hidden,
            "reasons": {
                reason: {"rows": count, "first": self.details[reason]} for reason, count in self.reasons.most_common()
            },
            "official": {what: {"official": count, "found": self._found(what)} for what, count in official.items()},
            "types": dict(sorted(self.types.items())),
            "repeated_ids": _few(self.repeated_ids), "equal_options": _few(self.equal_options),
            "answers": self._answers(), "labels": dict(sorted(self.labels.items())),
        }  # fmt: skip

    def _found(self, what: str) -> int:
        return {"questions": self.rows, "videos": len(self.paths())}.get(what, self.types[what])

    def _answers(self) -> dict[str, Any] | None:
        """Where the right options stand, by their number; what guessing and always saying the same would score. None: no
        row has options and a known answer."""
        total = sum(self.answers.values())
        if not total:
            return None
        places = sum(self.positions.values(), Counter[int]())
        place, at_place = min(places.items(), key=lambda item: (-item[1], item[0]))
        text, with_text = min(self.answers.items(), key=lambda item: (-item[1], item[0]))
        sizes = [size for size, counts in self.positions.items() for _ in range(counts.total())]
        return {
            "known": total, "chance": chance(sizes),
            "positions": {str(size): _position_row(size, self.positions[size]) for size in sorted(self.positions)},
            "constant_position": {"position": place, "accuracy": at_place / total},
            "constant_text": {"text": text, "accuracy": with_text / total},
        }  # fmt: skip


def _few(ids: Sequence[str]) -> dict[str, Any]:
    return {"count": len(ids), "first": list(ids[:SHOWN])}


def _position_row(size: int, counts: Counter[int]) -> dict[str, Any]:
    """`p`: of Pearson's chi-square test that all positions are equally likely."""
    from scipy.stats import chisquare

    found = [counts[place] for place in range(size)]
    return {"counts": found, "p": float(chisquare(found).pvalue)}
