"""What the steps of a grid took, and what went wrong with them: `<runs>/grids/<name>/steps.json`.

    {"stage1 0f3a...": {"seconds": 41.2, "attempts": 1, "error": "", "exit_code": 0, "details": "", "paused": false}, ...}

Seconds of the last attempt, and of those before it that were paused. It survives a kill, so that a table that is written again knows why a cell has no result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cluenet.folders import atomic_write_json
from cluenet.grid.graph import Graph, Key


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt. error: in words, empty when it went well. exit_code: as the command line's. details: the
    traceback of a bug. paused: a stage that was left before its end, as it should be."""

    seconds: float
    error: str = ""
    exit_code: int = 0
    details: str = ""
    paused: bool = False


class Account:
    def __init__(self, folder: Path):
        self._file = folder / "steps.json"
        try:
            self._steps: dict[str, dict[str, Any]] = json.loads(self._file.read_text())
        except FileNotFoundError:
            self._steps = {}

    def add(self, key: Key, outcome: Outcome, attempt: int) -> None:
        """Raises StorageError."""
        before = self._steps.get(" ".join(key), {})
        seconds = outcome.seconds + (before["seconds"] if before.get("paused") else 0.0)
        self._steps[" ".join(key)] = {**vars(outcome), "seconds": round(seconds, 2), "attempts": attempt}
        atomic_write_json(self._file, self._steps)

    def error(self, key: Key) -> str:
        """Why the step is not finished, empty where that is not known."""
        return str(self._steps.get(" ".join(key), {}).get("error", ""))

    def mean_seconds(self, graph: Graph) -> dict[str, float]:
        """By step, of those of the graph that are finished and were done here."""
        found: dict[str, list[float]] = {}
        for key, node in graph.nodes.items():
            spent = self._steps.get(" ".join(key))
            if node.finished and spent and not spent["error"]:
                found.setdefault(node.step, []).append(spent["seconds"])
        return {step: fmean(seconds) for step, seconds in found.items()}
