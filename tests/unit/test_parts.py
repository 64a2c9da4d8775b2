"""A worker's part: what is decoded, kept, accounted for, reused and retried; and the hash of a video's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluenet.data import parts
from cluenet.data.batches import Batch, FileJob, Span
from cluenet.data.parts import PartMaker, is_current, sha256_of
from cluenet.decoding import decode_frames
from cluenet.errors import MediaError, StorageError
from cluenet.isolation import Decoded, Job
from cluenet.prepared import read_account
from cluenet.recipe import Recipe
from helpers.models import clip

WHOLE, LATE = Span(0.0, None), Span(90.0, None)


class Decoder:
    """In place of the isolated one: every clip from 90 s on is outside, every file named *bad* is corrupt."""

    asked: list[Job] = []

    def __init__(self, policy: object, **_: object):
        pass

    def close(self) -> None:
        pass

    def decode(self, jobs: Iterable[Job]) -> Iterator[Decoded]:
        for path, fps, clips in jobs:
            self.asked.append((path, fps, clips))
            if "bad" in path:
                failed = (("decord", "timeout"), ("pyav", "corrupt"))
                yield Decoded([MediaError("corrupt", path)] * len(clips), None, failed, openings=2)
            else:
                outcomes = [MediaError("outside", path) if start >= 90 else clip(len(path)) for start, _ in clips]
                yield Decoded(outcomes, "pyav", (("decord", "unsupported"),), openings=2)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parts, "IsolatedDecoder", Decoder)
    monkeypatch.setattr(Decoder, "asked", [])
    for name in ("good", "bad"):
        (tmp_path / name).write_text(name)
    return tmp_path


def maker(store: Path, **data: object) -> PartMaker:
    return PartMaker(Recipe.from_dict({"data": data}), store / "set")


def batch(store: Path) -> Batch:
    jobs = [FileJob(str(store / "bad"), None, (WHOLE,)), FileJob(str(store / "good"), None, (WHOLE, LATE))]
    return Batch(3, tuple(jobs))


def test_the_account_says_what_became_of_every_clip(store: Path) -> None:
    account = maker(store).account(batch(store))
    bad, good = account["files"]
    assert (account["part"], account["reused"]) == (batch(store).part, False)
    assert (bad["sha256"], bad["openings"]) == ("", 2)
    assert bad["clips"][0] == {
        "start_seconds": 0.0, "end_seconds": None, "reason": "corrupt", "detail": str(store / "bad"), "reader": "pyav",
        "timeout_seconds": 60.0, "failed": [["decord", "timeout"], ["pyav", "corrupt"]],
    }  # fmt: skip
    assert good["sha256"] == hashlib.sha256(b"good").hexdigest()
    first, second = good["clips"]
    assert (first["reader"], first["failed"]) == ("pyav", [["decord", "unsupported"]])
    assert (second["reason"], second["reader"], second["start_seconds"]) == ("outside", "pyav", 90.0)
    stored = pq.read_table(store / "set" / "clips" / account["part"]).to_pylist()
    assert [row["key"] for row in stored] == [first["key"]]
    wanted = clip(len(str(store / "good")))
    np.testing.assert_array_equal(decode_frames(stored[0]["frames"]).frames_THWC, wanted.frames_THWC)
    assert stored[0]["seconds"] == wanted.seconds_T.tolist()


def test_a_part_on_disk_is_not_decoded_again(store: Path) -> None:
    first = maker(store).account(batch(store))
    before = (store / "set" / "clips" / first["part"]).read_bytes()
    Decoder.asked.clear()
    assert maker(store).account(batch(store)) == {**first, "reused": True}
    assert Decoder.asked == []
    (store / "set" / "clips" / first["part"]).write_bytes(before[:-5])
    assert maker(store).account(batch(store)) == first
    assert (store / "set" / "clips" / first["part"]).read_bytes() == before  # the same bytes again


def test_a_part_is_made_again_when_a_time_limit_was_raised(store: Path) -> None:
    account = maker(store).account(batch(store))
    assert is_current(account, 60.0)
    assert is_current(account, 30.0)
    assert not is_current(account, 61.0)
    assert maker(store, decode_timeout_seconds=61.0).account(batch(store))["reused"] is False


@pytest.mark.parametrize("change", ["came", "went", "replaced"])
def test_a_part_is_made_again_when_a_file_changed(store: Path, change: str) -> None:
    file = store / "good"
    if change == "came":
        file.unlink()
    first = maker(store).account(batch(store))
    assert maker(store).account(batch(store))["reused"] is True
    if change == "went":
        file.unlink()
    else:
        file.write_text("something else")
    again = maker(store).account(batch(store))
    assert again["reused"] is False
    assert again["files"] != first["files"]
    assert maker(store).account(batch(store))["reused"] is True


def test_keys_depend_on_content_span_rate_and_policy_but_not_on_the_path(store: Path) -> None:
    (store / "copy").write_text("good")
    (store / "other").write_text("else")

    def key(name: str, fps: float | None = None, span: Span = WHOLE, **data: object) -> str:
        account = maker(store, **data).account(Batch(0, (FileJob(str(store / name), fps, (span,)),)))
        return account["files"][0]["clips"][0]["key"]

    jpeg = PartMaker(Recipe.from_dict({"data": {"codec": "jpeg95"}}), store / "jpeg")
    other_policy = jpeg.account(Batch(0, (FileJob(str(store / "good"), None, (WHOLE,)),)))["files"][0]["clips"][0][
        "key"
    ]
    assert key("good") == key("copy")
    assert len({key("good"), key("other"), key("good", 2.0), key("good", span=Span(1.0, None)), other_policy}) == 5


def test_a_full_disk_leaves_no_part_behind(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts.ClipWriter, "write", full)
    with pytest.raises(StorageError, match=r"set/clips/part-00003-.*the disk is full"):
        maker(store).account(batch(store))
    assert list((store / "set" / "clips").iterdir()) == []


def test_a_file_that_goes_away_after_decoding_is_quarantined(store: Path) -> None:
    account = maker(store).account(Batch(0, (FileJob(str(store / "nothing"), None, (WHOLE,)),)))
    assert account["files"][0]["clips"][0]["reason"] == "unreadable"
    assert read_account(store / "set" / "clips" / account["part"]) is not None


def test_hash_of_a_folder_covers_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> str:
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        return sha256_of(tmp_path / name)

    assert folder("a", x="1", y="2") == folder("b", y="2", x="1")
    assert (
        len({folder("c", x="1", y="2"), folder("d", x="2", y="1"), folder("e", z="1", y="2"), folder("f", x="1")}) == 4
    )
    assert json.dumps(sha256_of(tmp_path / "a"))[1:-1].isalnum()
