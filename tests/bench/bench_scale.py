"""What preparing costs with a thousand, ten thousand and a hundred thousand videos: bytes, files and tasks, for docs/scale.md.

Files of a few bytes and a reader that decodes nothing, so that what is measured is the platform's own. Every number is of a process of
its own. Bytes of the driver are its largest resident size less that before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cluenet.data.batches import FILES_PER_BATCH
from cluenet.data.workers import BATCHES_PER_TASK
from helpers.environments import ROOT

SIZES = (1000, 10_000, 100_000)
WITH_WORKERS = (1000, 10_000)
MOST_BYTES = 3000
"""Of the driver, for each video."""


def cost(folder: Path, videos: int, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", "helpers.scale", str(folder), str(videos), *options]
    sources = os.pathsep.join(str(ROOT / name) for name in ("platform", "components", "tests"))
    environment = {**os.environ, "PYTHONPATH": sources, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def lines(title: str, found: dict[int, dict[str, float]]) -> list[str]:
    """Totals of every size, and in brackets what one more video costs from the size before."""
    made, before = [title], None
    for videos, values in found.items():
        cells = []
        for name, value in values.items():
            more = "" if before is None else f" ({(value - found[before][name]) / (videos - before):.4g} a video)"
            cells.append(f"{name} {value:.6g}{more}")
        made.append(f"  {videos} videos: " + ", ".join(cells))
        before = videos
    return made


def test_the_driver_grows_with_the_videos_and_no_faster(tmp_path: Path, say) -> None:
    found = {videos: cost(tmp_path, videos) for videos in SIZES}
    say("\n".join(lines("the driver alone", found)))
    few, some, many = (found[videos]["driver_bytes"] for videos in SIZES)
    early, late = (some - few) / (SIZES[1] - SIZES[0]), (many - some) / (SIZES[2] - SIZES[1])
    assert late < MOST_BYTES
    assert late < 1.3 * early


def test_tasks_and_files_grow_as_stated(tmp_path: Path, say) -> None:
    found = {videos: cost(tmp_path, videos, "--workers") for videos in WITH_WORKERS}
    say("\n".join(lines("with two workers of Ray", found)))
    for videos, values in found.items():
        parts = -(-videos // FILES_PER_BATCH)
        assert values["tasks"] == -(-parts // BATCHES_PER_TASK)
        assert values["files"] == parts + 4  # questions (up to 10,000 of them), index, quarantine, manifest
