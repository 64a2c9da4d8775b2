"""Where datasets find their files: every set in the archives it is published in, and one name for two different files."""

from __future__ import annotations

import importlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.plugins import load_components
from cluenet.records import Example, Quarantined
from cluenet.registry import register
from cluenet_components.datasets._archives import Archives
from cluenet_components.datasets._places import Places
from helpers.benchmarks.mvbench import make_mvbench
from helpers.benchmarks.star import make_star

load_components()

FILMS = {"nextqa": "NExTVideo", "nextgqa": "NExTVideo", "star": "Charades_v1_480", "eventhallusion": "videos"}
"""The setting `videos`, below the folder of the miniature."""
VIDEOHALLUCER = ("object_relation", "temporal", "semantic_detail", "external_factual", "external_nonfactual")
ARCHIVES: dict[str, dict[str, str]] = {
    **{name: {films: f"{films}.zip"} for name, films in FILMS.items()},
    "star": {"Charades_v1_480": "Charades_v1_480.zip", "STAR_classes": "classes.zip"},
    "videohallucer": {category: f"{category}.zip" for category in VIDEOHALLUCER},
    "clevrer": {f"{what}_validation": f"{what}_validation.zip" for what in ("video", "annotation")},
}
"""Of every set: folder -> the archive that it is downloaded as."""
SPLITS = {"eventhallusion": "test", "videohallucer": "test", "clevrer": "validation"}


def make(name: str, folder: Path) -> Path:
    getattr(importlib.import_module(f"helpers.benchmarks.{name}"), f"make_{name}")(folder)
    return folder


def rows(name: str, folder: Path, cache: Path, **settings: Any) -> list[Any]:
    return list(dataset(name, folder, cache, **settings).rows())


def dataset(name: str, folder: Path, cache: Path, **settings: Any) -> Any:
    films = {"videos": str(folder / FILMS[name])} if name in FILMS else {}
    values = {"folder": str(folder), "split": SPLITS.get(name, "val"), "extract_to": str(cache), **films, **settings}
    return register.dataset[name].Config(**values).build()


def pack(folder: Path, archive: Path, *, top: bool) -> None:
    """top: whether the archive has the folder itself, or what is in it."""
    root, base = (folder.parent, folder.name) if top else (folder, ".")
    shutil.make_archive(str(archive.with_suffix("")), "zip", root, base)
    shutil.rmtree(folder)


def told(row: Any) -> tuple[Any, ...]:
    """All that a row says, but where its video lies."""
    return row.id, row.question, row.options, row.answer, row.type, row.clues, row.meta, row.video.start_seconds


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_set_is_read_from_the_archives_it_is_published_in(tmp_path: Path, name: str) -> None:
    home, cache = make(name, tmp_path / "data" / name), tmp_path / "cache"
    plain = [(told(row), content(row)) for row in rows(name, home, cache)]
    assert not cache.exists()
    for folder, archive in ARCHIVES[name].items():
        pack(home / folder, home / archive, top=name != "clevrer")
    described = [row.id for row in dataset(name, home, cache).described()]
    assert described == [key for (key, *_), _ in plain]
    assert not list(cache.rglob("*.mp4")), "what is only described extracts no video"
    found = rows(name, home, cache)
    assert [(told(row), content(row)) for row in found] == plain
    there = [row.video.path for row in found if Path(row.video.path).exists()]
    assert there
    assert all(Path(path).is_relative_to(cache) for path in there)


def content(row: Any) -> bytes | None:
    path = Path(row.video.path)
    return path.read_bytes() if path.is_file() else None


def test_without_folder_and_archive_the_videos_are_asked_for(tmp_path: Path) -> None:
    home = make("eventhallusion", tmp_path / "data")
    shutil.rmtree(home / "videos")
    with pytest.raises(DataError, match=r"eventhallusion.videos: no such folder: .*videos"):
        rows("eventhallusion", home, tmp_path / "cache")


def test_a_damaged_file_in_an_archive_makes_its_rows_bad_ones(tmp_path: Path) -> None:
    home = make("clevrer", tmp_path / "data")
    shutil.rmtree(home / "video_validation")
    archive = home / "video_validation.zip"
    names = [f"video_10000-11000/video_{scene}.mp4" for scene in (10_000, 10_001)]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.writestr(names[0], b"A" * 100)
        file.writestr(names[1], b"B" * 100)
    archive.write_bytes(archive.read_bytes().replace(b"A" * 100, b"A" * 99 + b"C"))
    found = rows("clevrer", home, tmp_path / "cache")
    assert {(row.meta["scene_index"], type(row)) for row in found} == {(10_000, Quarantined), (10_001, Example)}
    bad = next(row for row in found if isinstance(row, Quarantined))
    assert (bad.reason, bad.path) == ("corrupt_archive", str(home / "validation.json"))
    assert bad.detail.startswith("item 1: ")
    assert f"video_validation/{names[0]} in {archive}: Bad CRC-32" in bad.detail


def test_damaged_annotations_in_an_archive_are_an_error(tmp_path: Path) -> None:
    home = make_star(tmp_path / "star")
    with zipfile.ZipFile(home / "classes.zip", "w", zipfile.ZIP_STORED) as file:
        file.writestr("object_classes.txt", b"o000 person")
    damaged = (home / "classes.zip").read_bytes().replace(b"o000 person", b"o000 parson")
    (home / "classes.zip").write_bytes(damaged)
    shutil.rmtree(home / "STAR_classes")
    with pytest.raises(DataError, match=r"object_classes.txt in .*classes.zip: Bad CRC-32.*download the archive again"):
        rows("star", home, tmp_path / "cache")


def test_an_archive_writes_nothing_outside_of_the_cache(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as file:
        file.writestr("../../a.mp4", "film")
        file.writestr("b.mp4", "film")
    with Archives([tmp_path], tmp_path / "cache/inner") as archives:
        assert archives.extracted("../../a.mp4") is None
        assert archives.extracted("b.mp4") is not None
    assert [path.name for path in tmp_path.rglob("*.mp4")] == ["b.mp4"]


def test_the_folder_may_be_the_one_that_we_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("videohallucer", tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    assert len(rows("videohallucer", Path("."), tmp_path / "cache")) == 20


# ------------------------------------------------------------------------------------- one name for two different files


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("nextqa", "NExTVideo/0207/5550001121.mp4", "NExTVideo/5550001121.mp4"),
        ("nextqa", "NExTVideo/0207/5550001121.mp4", "NExTVideo/0207/5550001121.mkv"),
        ("eventhallusion", "videos/entire/entire_001.mp4", "videos/entire_001.mp4"),
        ("clevrer", "video_validation/video_10000-11000/video_10000.mp4", "video_validation/video_10000.mp4"),
    ],
)
def test_two_different_files_of_one_name_are_an_error_and_two_copies_are_not(
    tmp_path: Path, name: str, first: str, second: str
) -> None:
    home, cache = make(name, tmp_path / name), tmp_path / "cache"
    before = rows(name, home, cache)
    shutil.copy(home / first, home / second)
    assert rows(name, home, cache) == before
    (home / second).write_bytes(b"another film")
    with pytest.raises(DataError) as error:
        rows(name, home, cache)
    assert str(error.value) == (
        f"{home / first} and {home / second}: one name for two different files. Remove the one that is not meant."
    )


def test_a_replaced_video_of_mvbench_may_not_differ_from_one_that_is_there(tmp_path: Path) -> None:
    home = make_mvbench(tmp_path / "MVBench", questions=1)
    late = home / "video/data0613/star/Charades_v1_480/QX0ZT.mp4"
    late.parent.mkdir(parents=True)
    late.write_bytes(b"another film")
    with pytest.raises(DataError, match=r"star/Charades_v1_480/QX0ZT.mp4 and .*data0613.*QX0ZT.mp4: one name for two"):
        rows("mvbench", home, tmp_path / "cache", split="test")


def test_the_same_name_in_folders_of_different_subsets_is_no_collision(tmp_path: Path) -> None:
    """`clip_0.mp4` of perception and of scene_qa are two videos: a video is known by its subset and path."""
    home = make_mvbench(tmp_path / "MVBench", questions=1)
    tasks = {"tasks": ("Object Shuffle", "Scene Transition"), "split": "test"}
    one, other = rows("mvbench", home, tmp_path / "cache", **tasks)
    assert Path(one.video.path).name == Path(other.video.path).name
    assert content(one) != content(other)


def test_two_archives_may_hold_the_same_file_and_no_other_one_of_its_name(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            file.writestr(f"{name}/films/a.mp4", text)

    def found() -> Path | None:
        with Archives([tmp_path], tmp_path / "cache") as archives:
            return Places(tmp_path, archives).file("films/a.mp4")

    write("one", "film")
    write("two", "film")
    path = found()
    assert path is not None
    assert path.read_text() == "film"
    write("two", "another film")
    with pytest.raises(DataError, match=r"films/a.mp4 names two different files: one in .*one.zip.* and .*two.zip"):
        found()
