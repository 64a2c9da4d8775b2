"""The files that a job ships: the working directory without what `.gitignore`, `.rayignore` and EXCLUDES name.

They are found by Ray's own packing code, so that what is counted here is what is sent.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluenet.errors import ClusterError, Problem, RecipeError

EXCLUDES = (
    ".git", ".venv", "venv", "__pycache__", "runs", "build", "dist", "node_modules", "*.egg-info",
    ".*_cache", ".hypothesis", ".benchmarks", ".cluenet",
)  # fmt: skip
"""Patterns as in `.gitignore`. Ray 2.60 leaves out the first four by itself."""

MIB = 2**20
LARGEST = 5


def files_of(folder: Path) -> dict[str, int]:
    """Bytes of every file that is shipped, by its path in `folder`. Raises ClusterError when `folder` is not one."""
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE as ALL
    from ray._private.runtime_env import packaging

    if not folder.is_dir():
        raise ClusterError(f"--working-dir {folder} is not a folder.")
    found: dict[str, int] = {}

    def take(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(root).as_posix()] = path.stat().st_size

    root = folder.absolute()
    quiet = logging.getLogger(f"{__name__}.packing")
    quiet.setLevel(logging.ERROR)  # it names every .gitignore
    packaging._dir_travel(
        root, [packaging._get_excludes(root, list(EXCLUDES))], take, os.environ.get(ALL) != "1", quiet
    )
    return found


def require_small(files: Mapping[str, int], folder: Path, limit: int | None = None) -> None:
    """Raises ClusterError, naming the largest folders, when the files have more bytes than the cluster's job server takes."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    limit, size = limit or DASHBOARD_CLIENT_MAX_SIZE, sum(files.values())
    if size <= limit:
        return
    tops: Counter[str] = Counter()
    for path, count in files.items():
        top, slash, _ = path.partition("/")
        tops[top + slash] += count
    largest = ", ".join(f"{name} {_mib(count)}" for name, count in tops.most_common(LARGEST))
    raise ClusterError(
        f"working directory {folder}: {_mib(size)} in {len(files)} files are to be shipped, and Ray's job server takes "
        f"{_mib(limit)}. Largest: {largest}. Name what the job does not need in a file .rayignore (patterns as in .gitignore), or "
        "give another --working-dir; videos belong on storage that the cluster reads."
    )


def _mib(count: int) -> str:
    return f"{count / MIB:.1f} MiB"


def require_shipped(sources: Iterable[Path], files: Mapping[str, int], folder: Path) -> None:
    """Raises RecipeError for a source file that the job would not find."""
    root = folder.resolve()
    for source in sources:
        path = source.resolve()
        if not path.is_relative_to(root):
            message = f"is outside of the working directory {folder}, which is all that the job gets. Give another --working-dir"
            raise RecipeError(str(source), [Problem("", message)])
        if path.relative_to(root).as_posix() not in files:
            message = "is left out by .gitignore, .rayignore or the patterns that never ship (docs/jobs.md). Move or rename it"
            raise RecipeError(str(source), [Problem("", message)])
