"""The folder format: what was written is read back, one clip at a time, and damage is said, not returned."""

from __future__ import annotations

import errno
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluenet import prepared
from cluenet.errors import DataError, StorageError
from cluenet.folders import read_manifest, write_manifest
from cluenet.prepared import (
    ClipWriter,
    PreparedSet,
    atomic_file,
    folder_of,
    read_account,
    remove_leftovers,
    write_index,
    write_questions,
)
from cluenet.recipe import Recipe
from cluenet.records import Example
from helpers.models import clip, example
from helpers.prepared import prepared_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepared_set(tmp_path / "set", clips=4, questions=(2, 3))


class TestReading:
    def test_frames_are_those_written(self, folder: Path) -> None:
        opened = PreparedSet(folder)
        for number, key in enumerate(opened.clip_keys):
            wanted, found = clip(number), opened.frames(key)
            np.testing.assert_array_equal(found.frames_THWC, wanted.frames_THWC)
            np.testing.assert_array_equal(found.seconds_T, wanted.seconds_T)
            assert found.duration_seconds == wanted.duration_seconds

    def test_questions_come_in_order_and_by_clip(self, folder: Path) -> None:
        opened = PreparedSet(folder)
        assert (len(opened), opened.num_questions) == (4, 10)
        assert opened.clip_keys == sorted(opened.clip_keys)
        assert [item.id for item in opened.examples()] == [f"set/{number}" for number in range(10)]
        by_clip = [opened.examples_of(key) for key in opened.clip_keys]
        assert [len(items) for items in by_clip] == [2, 3, 2, 3]
        assert [item for items in by_clip for item in items] == opened.examples()

    def test_of_a_clip_only_the_questions_that_are_asked_for_are_made(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = PreparedSet(folder)
        key = opened.clip_keys[1]
        whole, made, from_row = opened.examples_of(key), [], Example.from_row
        monkeypatch.setattr(Example, "from_row", lambda row: made.append(row["id"]) or from_row(row))
        assert opened.examples_of(key, [2, 0, 2]) == [whole[2], whole[0], whole[2]]
        assert made == [whole[2].id, whole[0].id, whole[2].id]
        assert opened.examples_of(key, range(1, 3)) == whole[1:]
        assert opened.examples_of(key, []) == []
        with pytest.raises(IndexError):
            opened.examples_of(key, [3])

    def test_order_holds_over_several_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepared, "QUESTIONS_PER_PART", 3)
        folder = prepared_set(tmp_path / "set", clips=4)
        assert len(list((folder / "questions").iterdir())) == 4
        assert [item.id for item in PreparedSet(folder).examples()] == [f"set/{number}" for number in range(10)]

    def test_pickle_opens_the_folder_again(self, folder: Path) -> None:
        opened = PreparedSet(folder)
        opened.examples()
        assert len(pickle.dumps(opened)) < 500
        again = pickle.loads(pickle.dumps(opened))
        assert again.clip_keys == opened.clip_keys
        assert again.examples() == opened.examples()

    def test_threads_may_share_it(self, folder: Path) -> None:
        opened = PreparedSet(folder)
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(opened.frames, opened.clip_keys * 8))
        for number, frames in enumerate(found):
            np.testing.assert_array_equal(frames.frames_THWC, clip(number % 4).frames_THWC)

    def test_unknown_clip(self, folder: Path) -> None:
        with pytest.raises(KeyError):
            PreparedSet(folder).frames("nobody")
        with pytest.raises(KeyError):
            PreparedSet(folder).examples_of("nobody")

    def test_a_clip_has_a_row_group_of_its_own_and_no_copy_of_frames_in_the_footer(self, folder: Path) -> None:
        metadata = pq.read_metadata(folder / "clips" / "part-00000.parquet")
        frames = metadata.schema.names.index("frames")
        assert (metadata.num_rows, metadata.num_row_groups) == (4, 4)
        assert all(metadata.row_group(group).column(frames).statistics is None for group in range(4))
        assert metadata.serialized_size < 20_000


class TestDamage:
    def test_unfinished_folder(self, folder: Path) -> None:
        (folder / "manifest.json").unlink()
        with pytest.raises(StorageError, match="unfinished"):
            PreparedSet(folder)

    def test_another_format(self, folder: Path) -> None:
        write_manifest(folder, {**read_manifest(folder), "format": 99})
        with pytest.raises(DataError, match="format 99"):
            PreparedSet(folder)

    @pytest.mark.parametrize("name", ["index.parquet", "clips/part-00000.parquet", "questions/part-00000.parquet"])
    @pytest.mark.parametrize("how", ["missing", "truncated"])
    def test_a_broken_file_is_named_with_the_next_step(self, folder: Path, name: str, how: str) -> None:
        path = folder / name
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"(?s)set/(index|clips|questions).*prepare it again"):
            opened = PreparedSet(folder)
            opened.frames(opened.clip_keys[0])
            opened.examples()

    def test_lost_questions_are_noticed(self, folder: Path) -> None:
        write_questions(folder, [(example(0), PreparedSet(folder).clip_keys[0])])
        with pytest.raises(DataError, match="10 questions"):
            PreparedSet(folder).examples()


class TestWriting:
    def test_a_part_appears_with_its_account_or_not_at_all(self, tmp_path: Path) -> None:
        path = tmp_path / "clips" / "part.parquet"
        assert read_account(path) is None
        with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
            with atomic_file(path) as file:
                ClipWriter(file).abandon()
                raise KeyboardInterrupt
        assert list(path.parent.iterdir()) == []
        with atomic_file(path) as file:
            ClipWriter(file).close({"files": []})
        assert read_account(path) == {"files": []}
        path.write_bytes(path.read_bytes()[:-9])
        assert read_account(path) is None

    def test_a_full_disk_is_a_storage_error_with_the_next_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"index\.parquet: the disk is full.*store="):
            write_index(tmp_path, {"key": ("part", 0)})
        assert list(tmp_path.iterdir()) == []

    def test_fewer_questions_than_before_leave_no_old_part(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepared, "QUESTIONS_PER_PART", 1)
        write_questions(folder, [(example(number), "key") for number in range(3)])
        write_questions(folder, [(example(7), "key")])
        assert [path.name for path in (folder / "questions").iterdir()] == ["part-00000.parquet"]

    def test_leftovers_go_but_files_being_written_stay(self, folder: Path) -> None:
        clips = folder / "clips"
        for name in (".part-a.parquet.1.part", "part-00009.parquet"):
            (clips / name).touch()
        with atomic_file(clips / "part-00001.parquet") as file:
            remove_leftovers(folder, {"part-00000.parquet"})
            assert {path.name for path in clips.iterdir()} == {"part-00000.parquet", Path(file.name).name}
        assert {path.name for path in clips.iterdir()} == {"part-00000.parquet", "part-00001.parquet"}


class TestAddress:
    def recipe(self, tmp_path: Path, **values) -> Recipe:
        file = tmp_path / "rows.json"
        file.write_text(values.pop("rows", "[]"))
        data = {"train": [{"name": "listed", "file": str(file)}], **values.pop("data", {})}
        return Recipe.from_dict({"plugins": ["helpers.listed"], "store": str(tmp_path), "data": data, **values})

    def address(self, recipe: Recipe) -> str:
        return folder_of(recipe, recipe.data.train[0]).name

    def test_it_changes_with_data_and_policy_and_nothing_else(self, tmp_path: Path) -> None:
        first = self.address(self.recipe(tmp_path))
        assert self.address(self.recipe(tmp_path, rows="[ ]")) != first
        assert self.address(self.recipe(tmp_path, data={"codec": "jpeg95"})) != first
        same = self.recipe(tmp_path, seed=5, data={"decode_workers": 1, "decode_timeout_seconds": 5})
        assert self.address(same) == first


def test_quarantine_is_json_lines(folder: Path) -> None:
    from cluenet.prepared import write_quarantine
    from cluenet.records import Quarantined

    rows = [
        Quarantined("q1", "d", "ä.mp4", "corrupt", "line\nbreak", "pyav"),
        Quarantined("q2", "d", "", "malformed", ""),
    ]
    write_quarantine(folder, rows)
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    assert [Quarantined(**json.loads(line)) for line in lines] == rows
