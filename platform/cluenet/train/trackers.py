"""Where the numbers of training go: `logging.jsonl`, one line per optimiser step, TensorBoard, and services that a recipe names.

A line holds `stage`, `step` (counted from 1), `loss`, every loss term that had labels, `labels/<term>`, `lr`, `grad_norm`,
`data_seconds` (that the first worker waited for its batch), `seconds` (of the step, without that), `samples_per_second` (questions in
them), and on some steps `validation/<metric>`. A resumed run continues the file as if nothing had happened: no line twice, none missing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cluenet.folders import atomic_write_text, storage_errors
from cluenet.train import services

Line = Mapping[str, Any]


class Tracker(Protocol):
    def write(self, line: Line) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`logging.jsonl` of a run, shared by both stages."""

    def __init__(self, path: Path, *, stage: str, resume_step: int):
        """Drops what a killed attempt wrote of `stage` after `resume_step`."""
        self.path = path
        lines = read_lines(path)
        self.told = max((line["step"] for line in lines if line["stage"] == stage), default=0)
        """The last step that an earlier attempt wrote, and told every other tracker."""
        kept = [line for line in lines if line["stage"] != stage or line["step"] <= resume_step]
        atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")

    def write(self, line: Line) -> None:
        """Raises StorageError on a full disk, ValueError on a value that is not finite."""
        with storage_errors(self.path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """On disk now, whatever happens to the machine."""
        with storage_errors(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Every number of a line as a scalar, in `<run>/tensorboard/<stage>`."""

    def __init__(self, folder: Path, *, resume_step: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not always wanted

        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def write(self, line: Line) -> None:
        for name, value in line.items():
            if isinstance(value, (int, float)) and name != "step":
                self._writer.add_scalar(name, value, line["step"])

    def sync(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Trackers:
    """All that a recipe asks for; nothing on workers other than the first.

    recipe: `Recipe.to_dict()`. Raises what services raise: RecipeError for a missing package, CluenetError.
    """

    def __init__(self, run: Path, stage: str, *, resume_step: int, recipe: Mapping[str, Any], active: bool):
        self._all: list[Tracker] = []
        if not active:
            return
        lines, report_to = (
            JsonLines(run / "logging.jsonl", stage=stage, resume_step=resume_step),
            recipe["train"]["report_to"],
        )
        self._all.append(lines)
        if "tensorboard" in report_to:
            self._all.append(TensorBoard(run / "tensorboard" / stage, resume_step=resume_step))
        for name in report_to:
            if name in services.SERVICES:
                self._all.append(services.Service(name, run, stage, recipe, told=lines.told))

    def write(self, line: Line) -> None:
        for tracker in self._all:
            tracker.write(line)

    def sync(self) -> None:
        for tracker in self._all:
            tracker.sync()

    def close(self) -> None:
        for tracker in self._all:
            tracker.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Complete lines of a `logging.jsonl`; a last line that a killed process left half written is no line."""
    return Follower(path).new_lines()


class Follower:
    """Reads a `logging.jsonl` that another process writes, each line once."""

    def __init__(self, path: Path):
        self.path = path
        self._offset, self._inode = 0, 0

    def new_lines(self) -> list[dict[str, Any]]:
        """Complete lines since the last call; all of them when the file was made anew, as a resumed run does."""
        try:
            with self.path.open("rb") as file:
                if (inode := os.fstat(file.fileno()).st_ino) != self._inode:
                    self._offset, self._inode = 0, inode
                file.seek(self._offset)
                *lines, rest = file.read().split(b"\n")
                self._offset = file.tell() - len(rest)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


def finite(line: Line) -> str | None:
    """Name of the first value that is NaN or infinite."""
    return next((name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)), None)
