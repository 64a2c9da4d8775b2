"""Rows on disk, labels attached, ids unique."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from cluenet.data.rows import Rows, labelled_rows
from cluenet.errors import DataError, StorageError
from cluenet.plugins import load_components
from cluenet.records import Clue, Quarantined
from cluenet.registry import register
from helpers.listed import ListedRows, write_rows
from helpers.models import example

load_components()
BAD = Quarantined("q1", "fake", "", "malformed", "no question")


def dataset(tmp_path: Path, rows: list, **settings) -> ListedRows:
    return ListedRows(ListedRows.Config(file=str(write_rows(tmp_path / "rows.json", rows)), **settings))


def annotated():
    return register.clue_source.parse("annotated").build()


def test_rows_are_kept_in_order_without_a_visible_file(tmp_path: Path) -> None:
    wanted = [example(0), BAD, example(2)]
    with Rows(tmp_path) as rows:
        for row in wanted:
            rows.append(row)
        assert (len(rows), list(rows), list(rows)) == (3, wanted, wanted)
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Rows(tmp_path) as rows:
        monkeypatch.setattr(pickle, "dump", full)
        with pytest.raises(StorageError, match="disk is full"):
            rows.append(BAD)


def test_max_samples_counts_bad_rows_too(tmp_path: Path) -> None:
    rows = [example(0), BAD, example(2), example(3)]
    assert list(labelled_rows(dataset(tmp_path, rows, max_samples=3), annotated())) == rows[:3]


def test_the_clue_source_labels_good_rows_only(tmp_path: Path) -> None:
    class Source:
        def attach(self, item):
            return item.with_clues((Clue("it rains"),), None)

    found = list(labelled_rows(dataset(tmp_path, [example(0), BAD]), Source()))
    assert [clue.text for clue in found[0].clues] == ["it rains"]
    assert found[1] == BAD


def test_repeated_ids_are_all_counted_and_some_named(tmp_path: Path) -> None:
    rows = [example(number) for number in (*range(8), *range(8), 0)]
    with pytest.raises(DataError, match=r"'listed', split 'train': 9 questions .*: 'q0', .*'q4' and 4 more"):
        list(labelled_rows(dataset(tmp_path, rows), annotated()))


def test_a_bad_row_may_share_an_id(tmp_path: Path) -> None:
    assert len(list(labelled_rows(dataset(tmp_path, [BAD, example(1), BAD]), annotated()))) == 3
