"""Counting of rows, labels and files, and the comparison with the folder that must fail when anything is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluenet.data.accounting import QuestionAccounts, VideoAccounts, check, labels_of
from cluenet.prepared import PreparedSet
from cluenet.records import Box, Clue, Example, Quarantined, VideoRef
from helpers.prepared import prepared_set

VIDEO = VideoRef("a.mp4")


def test_labels_are_counted_by_what_they_can_teach() -> None:
    plain = Example("1", "d", VIDEO, "why?", ("a", "b"), None)
    no_clue_needed = Example("2", "d", VIDEO, "why?", ("a", "b"), 0, clues=())
    full = Example(
        "3", "d", VIDEO, "why?", answer="so", chain="as",
        clues=(Clue("he runs"), Clue("it falls", 1.0, 2.0, (Box(1.5, 0, 0, 1, 1),), {"who": "it"})),
    )  # fmt: skip
    assert not any(labels_of(plain).values())
    assert [name for name, has in labels_of(no_clue_needed).items() if has] == ["answer", "clues"]
    assert all(labels_of(full).values())
    accounts = QuestionAccounts()
    for example in (plain, no_clue_needed, full):
        accounts.add_ready(example)
    counted = accounts.to_dict(3)
    assert counted["labels"] == {"answer": 2, "chain": 1, "clues": 2, "times": 1, "boxes": 1, "concepts": 1}
    assert counted["options"] == {"0": 1, "2": 2}


def test_quarantined_rows_are_counted_by_reason_and_by_reader() -> None:
    accounts = QuestionAccounts()
    for reason, reader in (("corrupt", "decord"), ("corrupt", "pyav"), ("corrupt", "pyav"), ("malformed", None)):
        accounts.add_quarantined(Quarantined("x", "d", "a.mp4", reason, "", reader))
    assert accounts.to_dict(4)["quarantined"] == {
        "reasons": {"corrupt": 3, "malformed": 1},
        "readers": {"decord": {"corrupt": 1}, "pyav": {"corrupt": 2}},
    }


def ready(key: str, **changes) -> dict:
    clip = {"start_seconds": 0.0, "end_seconds": None, "key": key, "bytes": 10, "reader": "decord", "failed": []}
    return {**clip, **changes}


BAD = {"start_seconds": 5.0, "end_seconds": None, "reason": "outside", "detail": "", "reader": "decord", "failed": []}


def test_files_are_counted_over_parts() -> None:
    accounts = VideoAccounts()
    two = {
        "path": "a",
        "fps": None,
        "openings": 2,
        "clips": [ready("k", reader="pyav", failed=[["decord", "corrupt"]]), BAD],
    }
    bad = {"path": "b", "fps": None, "openings": 1, "clips": [{**BAD, "failed": [["decord", "corrupt"]]}]}
    rest = {"path": "a", "fps": None, "openings": 1, "clips": [ready("l")]}  # a file whose clips fill more than a batch
    accounts.add({"files": [two, bad], "reused": False})
    accounts.add({"files": [rest], "reused": True})
    assert accounts.to_dict(distinct=2) == {
        "videos": {"files": 2, "decoded": 1, "failed": 1},
        "clips": {
            "asked": 4, "ready": 2, "failed": 2, "distinct": 2, "reasons": {"outside": 2}, "per_file": {"1": 1, "3": 1},
        },
        "decoding": {
            "openings": 4, "readers": {"decord": 1, "pyav": 1}, "failed_readers": {"decord": {"corrupt": 2}}, "by_fallback": 1,
            "bytes": 20,
        },
    }  # fmt: skip
    assert accounts.files == {"decoded": 2, "reused": 1}


class TestCheck:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return prepared_set(tmp_path / "set", clips=3, questions=(2,))

    @pytest.fixture
    def accounts(self, folder: Path) -> dict:
        questions = QuestionAccounts()
        for example in PreparedSet(folder).examples():
            questions.add_ready(example)
        videos = VideoAccounts()
        videos.add({"reused": False, "files": [{"path": "a", "fps": None, "openings": 1, "clips": [ready("k")] * 3}]})
        return {**questions.to_dict(6), **videos.to_dict(3)}

    @pytest.fixture
    def places(self, folder: Path) -> dict[str, tuple[str, int]]:
        return dict.fromkeys(PreparedSet(folder).clip_keys, ("part", 0))

    def test_it_passes_when_everything_agrees(self, folder: Path, accounts: dict, places: dict) -> None:
        check(folder, accounts, places, 3)

    def test_a_lost_row_is_found(self, folder: Path, accounts: dict, places: dict) -> None:
        accounts["rows"]["in"] += 1
        with pytest.raises(RuntimeError, match="rows in = ready"):
            check(folder, accounts, places, 3)

    def test_a_lost_questions_part_is_found(self, folder: Path, accounts: dict, places: dict) -> None:
        (folder / "questions" / "part-00000.parquet").unlink()
        with pytest.raises(RuntimeError, match="6 and 0"):
            check(folder, accounts, places, 3)

    def test_a_line_too_many_in_the_quarantine_is_found(self, folder: Path, accounts: dict, places: dict) -> None:
        (folder / "quarantine.jsonl").write_text(json.dumps({}) + "\n")
        with pytest.raises(RuntimeError, match=r"quarantine\.jsonl: 0 and 1"):
            check(folder, accounts, places, 3)

    def test_a_lost_clip_is_found(self, folder: Path, accounts: dict, places: dict) -> None:
        with pytest.raises(RuntimeError, match="clips asked"):
            check(folder, accounts, places, 4)
        places.popitem()
        with pytest.raises(RuntimeError, match="distinct"):
            check(folder, accounts, places, 3)
