"""What preparing costs with more videos: tasks, files, and what the driver holds. Counts, no times."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import pytest

from cluenet.data import workers
from cluenet.data.batches import FILES_PER_BATCH
from cluenet.data.prepare import prepare
from cluenet.data.workers import number_of_tasks
from cluenet.folders import read_manifest
from helpers.memory import bytes_per_row
from helpers.scale import Silent, prepared_by_driver
from helpers.synthetic import recipe_of, write_videos


@pytest.mark.parametrize(
    ("videos", "tasks"),
    [
        (1000, 16),
        (10_000, 157),
        (100_000, 1563),
        (640_000, 10_000),
        (1_000_000, 10_000),
        (100_000_000, 10_000),
    ],
)
def test_a_task_for_64_videos_up_to_ten_thousand(videos: int, tasks: int) -> None:
    assert number_of_tasks(-(-videos // FILES_PER_BATCH), workers=2) == tasks


@pytest.mark.parametrize(("batches", "workers", "tasks"), [(8, 8, 8), (7, 2, 7), (20, 2, 8), (3, 8, 3)])
def test_few_videos_keep_all_workers_busy_to_the_end(batches: int, workers: int, tasks: int) -> None:
    assert number_of_tasks(batches, workers=workers) == tasks


def test_the_driver_holds_three_kilobytes_a_video(tmp_path: Path) -> None:
    """Half of them are questions on their way to the disk, 10,000 at a time."""

    def driver(videos: int) -> Path:
        return prepared_by_driver(recipe_of(Path(mkdtemp(dir=tmp_path)), videos))

    assert bytes_per_row(driver, 400, 1600).peak < 3500


@pytest.mark.usefixtures("ray_session")
def test_larger_tasks_make_the_same_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 and a rest: seven parts in two tasks."""
    monkeypatch.setattr(workers, "MOST_TASKS", 2)
    write_videos(tmp_path / "videos", 100)
    made = recipe_of(tmp_path, 100)
    folder = prepare(made, made.data.train[0], progress=Silent)
    manifest = read_manifest(folder)
    assert manifest["rows"] == {"in": 100, "ready": 100, "quarantined": 0}
    assert manifest["run"]["parts"] == {"decoded": 7, "reused": 0}
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "index.parquet", "manifest.json", "quarantine.jsonl",
    ]  # fmt: skip
    assert len(list((folder / "clips").iterdir())) == 7
    assert len(list((folder / "questions").iterdir())) == 1
