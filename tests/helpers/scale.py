"""What preparing synthetic videos costs, in a process of its own: `python -m helpers.scale FOLDER VIDEOS [--workers]`, a line of JSON.

Without `--workers` the accounts that workers return are made up in this process, so that only the driver works: a hundred thousand
videos take less than a minute. With it Ray's workers open every file and write every part.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

from cluenet.data import prepare
from cluenet.data.batches import Batch, FileJob
from cluenet.data.parts import Account
from cluenet.recipe import Recipe
from cluenet.records import content_hash
from helpers.synthetic import recipe_of, write_videos

SECONDS_BETWEEN_LOOKS = 0.1


def accounts_made_up(work: Sequence[Batch], recipe: Recipe, folder: Path) -> Iterator[Account]:
    """In place of `cluenet.data.workers.accounts_of`: what workers would return, their parts being empty files."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for batch in work:
        (folder / "clips" / batch.part).touch()
        account = {"files": [_file(job) for job in batch.jobs], "part": batch.part, "reused": False}
        yield json.loads(json.dumps(account))  # as they come from workers


def _file(job: FileJob) -> dict[str, Any]:
    sha256 = content_hash(job.path, length=64)
    clips = [
        {**asdict(span), "key": content_hash(sha256, asdict(span)), "bytes": 300, "reader": "blank", "failed": []} for span in job.spans
    ]  # fmt: skip
    return {
        "path": job.path,
        "fps": None,
        "state": [8, 1_790_000_000_000_000_000],
        "sha256": sha256,
        "openings": 1,
        "clips": clips,
    }


def prepared_by_driver(recipe: Recipe) -> Path:
    with mock.patch.object(prepare, "accounts_of", accounts_made_up):
        return prepare.prepare(recipe, recipe.data.train[0], progress=Silent)


def cost_to_driver(folder: Path, videos: int) -> dict[str, float]:
    recipe = recipe_of(folder, videos)
    before = _now_bytes()
    made = prepared_by_driver(recipe)
    return {"driver_bytes": _most_bytes() - before, **_on_disk(made)}


def cost_with_workers(folder: Path, videos: int) -> dict[str, float]:
    import ray
    import ray.data

    ray.init(address="local", num_cpus=2, object_store_memory=300 * 2**20, include_dashboard=False, log_to_driver=False)
    ray.data.range(4).map(lambda row: row).take_all()  # what Ray Data imports and keeps does not count
    write_videos(folder / "videos", videos)
    recipe = recipe_of(folder, videos)
    before, watch = _now_bytes(), StoreWatch()
    made = prepare.prepare(recipe, recipe.data.train[0], progress=Silent)
    most = _most_bytes() - before
    time.sleep(2)  # until workers have told
    ran = [event["cat"] for event in ray.timeline()]
    tasks = sum(name.startswith("task::") and "MapBatches" in name and "submit" in name for name in ran)
    return {"driver_bytes": most, **_on_disk(made), "tasks": tasks, "store_bytes": watch.most}


def _on_disk(made: Path) -> dict[str, float]:
    """Files and bytes of a prepared folder."""

    def size(pattern: str) -> int:
        return sum(path.stat().st_size for path in made.glob(pattern))

    return {
        "files": sum(path.is_file() for path in made.rglob("*")), "clips_bytes": size("clips/*"),
        "questions_bytes": size("questions/*"), "index_bytes": size("index.parquet"),
    }  # fmt: skip


def _now_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class StoreWatch:
    """The largest number of bytes that were in Ray's object store since it was made."""

    def __init__(self) -> None:
        self.most = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        import ray

        while ray.is_initialized():
            name = "object_store_memory"
            self.most = max(self.most, int(ray.cluster_resources()[name] - ray.available_resources().get(name, 0)))
            time.sleep(SECONDS_BETWEEN_LOOKS)


class Silent:
    """A progress display that shows nothing."""

    def __init__(self, *_: object, **__: object):
        pass

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, *_: object, **__: object) -> None:
        pass


def main(folder: str, videos: str, *options: str) -> None:
    cost = cost_with_workers if options else cost_to_driver
    started = time.perf_counter()
    found = cost(Path(folder), int(videos))
    print(json.dumps({**found, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
