"""Files and folders are whole or not there, and a full disk is named."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluenet import folders
from cluenet.errors import StorageError
from cluenet.folders import (
    atomic_write_json,
    atomic_write_text,
    building,
    finished,
    read_manifest,
    storage_errors,
    write_manifest,
)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_written_file_has_its_folders_and_leaves_no_other(tmp_path: Path):
    path = atomic_write_text(tmp_path / "a" / "b" / "c.txt", "ä\n")
    assert path.read_text() == "ä\n"
    assert os.listdir(path.parent) == ["c.txt"]


def test_json_is_readable_and_strict(tmp_path: Path):
    assert json.loads(atomic_write_json(tmp_path / "a.json", {"b": [1, "ä"]}).read_text()) == {"b": [1, "ä"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"b": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["b"] == [1, "ä"]


def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = atomic_write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    message = str(caught.value)
    assert str(path) in message
    assert "MiB free" in message
    assert "`store=`" in message


def test_a_full_disk_is_found_inside_the_errors_of_libraries(tmp_path: Path):
    with pytest.raises(StorageError, match="the disk is full"), storage_errors(tmp_path):
        try:
            full_disk()
        except OSError as error:
            raise RuntimeError("the library failed") from error


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_other_reasons_not_to_write(tmp_path: Path, number: int):
    with pytest.raises(StorageError, match=str(tmp_path)), storage_errors(tmp_path):
        raise OSError(number, "no")


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "no"), ValueError("no"), FileNotFoundError("no")])
def test_every_other_error_passes(tmp_path: Path, error: Exception):
    with pytest.raises(type(error)) as caught, storage_errors(tmp_path):
        raise error
    assert caught.value is error


def test_a_folder_is_finished_with_its_manifest(tmp_path: Path):
    assert not finished(tmp_path)
    write_manifest(tmp_path, {"a": 1})
    assert finished(tmp_path)
    assert read_manifest(tmp_path) == {"a": 1}


def test_a_manifest_that_cannot_be_read_says_why(tmp_path: Path):
    with pytest.raises(StorageError, match="missing"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(StorageError, match="unfinished"):
        read_manifest(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(StorageError, match="Delete the folder"):
            read_manifest(tmp_path)


def test_a_built_folder_appears_whole(tmp_path: Path):
    with building(tmp_path / "out") as part:
        (part / "weights").write_text("w")
        assert not (tmp_path / "out").exists()
        write_manifest(part, {})
    assert (tmp_path / "out" / "weights").read_text() == "w"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "out") as part:
        (part / "weights").write_text("w")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_unfinished_folder_is_replaced(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "half").touch()
    with building(tmp_path / "out") as part:
        write_manifest(part, {"a": 1})
    assert os.listdir(tmp_path / "out") == ["manifest.json"]


def test_of_two_that_build_the_same_folder_the_first_wins(tmp_path: Path):
    def build(number: int) -> None:
        with building(tmp_path / "out") as part:
            (part / "number").write_text(str(number))
            write_manifest(part, {"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build, range(8)))
    assert os.listdir(tmp_path) == ["out"]
    assert read_manifest(tmp_path / "out")["number"] == int((tmp_path / "out" / "number").read_text())


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch):
    """As in a job that ships its code: no package of that name is there."""
    import cluenet

    def only_others(name: str) -> str:
        assert name != "cluenet"
        return "1.0"

    monkeypatch.setattr(folders, "version", only_others)
    assert folders.versions("ray", "torch") == {"cluenet": cluenet.__version__, "ray": "1.0", "torch": "1.0"}
