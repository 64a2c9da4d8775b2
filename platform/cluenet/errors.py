"""Every error a user can meet, and what each must say: file, dotted path, value, allowed values, next step.

The command line turns a `CluenetError` into a message and an exit code; anything else is a bug of ours (exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class CluenetError(Exception):
    """Base of all errors with a message meant for people. `exit_code` 2: the input is wrong; 1: we are."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one place of a file."""

    path: str  # dotted path inside the file, "" for the file as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class RecipeError(CluenetError):
    """A recipe or another settings file is wrong; lists every problem found, not only the first."""

    def __init__(self, file: str, problems: Sequence[Problem]):
        self.file, self.problems = file, tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{file}: {count}\n{lines}")

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.file, self.problems)


class PluginError(CluenetError):
    """A package that brings components cannot be imported, or two components claim one name."""


class DataError(CluenetError):
    """A dataset or one of its files cannot be used as a whole (single bad rows are quarantined instead)."""


class MissingDataError(DataError):
    """A file or folder that a dataset needs is not there."""


class MediaError(CluenetError):
    """One video cannot be read. `reason` is a short stable word for counting, the message says the rest."""

    def __init__(self, reason: str, message: str):
        self.reason, self.message = reason, message
        super().__init__(f"{reason}: {message}")

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.reason, self.message)


class SupervisionError(CluenetError):
    """A training stage has nothing to learn from, or a label cannot be used."""


class CheckpointError(CluenetError):
    """A model folder or checkpoint is missing, incomplete, or was made under another frame policy."""


class ClusterError(CluenetError):
    """Ray cannot be reached or refuses us."""


class GridError(CluenetError):
    """Some cells of a grid have no result. `exit_code` as of what stopped them: 1 where one of it was a bug of ours."""

    def __init__(self, message: str, exit_code: int = 2):
        self.exit_code = exit_code
        super().__init__(message)

    def __reduce__(self) -> tuple[type[GridError], tuple[str, int]]:
        return type(self), (str(self), self.exit_code)


class StorageError(CluenetError):
    """The disk is full or a folder cannot be written."""


def suggestion(wrong: str, known: Iterable[str], *, label: str = "Known") -> str:
    """ "Did you mean 'x'? Known: a, b, c." for an unknown name."""
    known = sorted(known)
    near = get_close_matches(str(wrong), known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}{label}: {', '.join(known) or 'nothing'}."
