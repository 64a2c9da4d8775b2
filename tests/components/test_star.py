"""The `star` dataset on small files in the official format: rows, options, clips, folders of frames, errors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluenet.decoding import FramePolicy, decode_clips
from cluenet.errors import DataError
from cluenet.records import Example, Frames, Quarantined, VideoRef
from cluenet.testing.videos import counting_frames, read_number, write_frame_folder, write_video
from cluenet_components.datasets.star import StarDataset
from cluenet_components.readers.pyav import PyavReader
from cluenet_components.samplers.uniform import UniformSampler
from helpers.benchmarks.star import FPS, THINGS, hidden, make_star, question, write_classes

OPTIONS = tuple(f"The {thing}." for thing in THINGS)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    write_classes(tmp_path / "STAR_classes")
    return tmp_path


def write(home: Path, *rows: Any, split: str = "val") -> None:
    (home / f"STAR_{split}.json").write_text(json.dumps(rows))


def dataset(home: Path, **settings: Any) -> StarDataset:
    return StarDataset.Config(folder=str(home), videos=str(home / "videos"), **{"split": "val", **settings}).build()


def rows(home: Path, **settings: Any) -> list[Example | Quarantined]:
    return list(dataset(home, **settings).rows())


def first(**changes: Any) -> dict[str, Any]:
    return question("QX7ZT", 1) | changes


def film(home: Path, name: str = "QX7ZT.mp4") -> Path:
    return write_video(home / "videos" / name, counting_frames(24, height=48, width=64), fps=FPS)


def test_official_row(home: Path) -> None:
    write(home, first())
    video = film(home)
    (found,) = rows(home, clues=False)
    assert found == Example(
        id="Sequence_T2_QX7ZT1",
        dataset="star",
        video=VideoRef(str(video), 0.5, 2.0),
        question="Which object did the person put down after they held the towel?",
        options=OPTIONS,
        answer=1,
        type="Sequence",
        meta={"template": "T2"},
    )


def test_the_number_of_a_choice_reaches_nothing(home: Path) -> None:
    """The generator numbers the right choice 0, so that its number alone would give it away."""
    numbered = first(choices=[{"choice_id": 7 - i, "choice": text, "note": "x"} for i, text in enumerate(OPTIONS)])
    bare = first(choices=[{"choice": text} for text in OPTIONS])
    found = []
    for row in (first(), numbered, bare):
        write(home, row)
        found += rows(home)
    assert found[0] == found[1] == found[2]
    assert "choice_id" not in json.dumps(found[0].to_row())


def test_choices_keep_their_stored_order_and_the_answer_follows_its_text(home: Path) -> None:
    write(home, first(choices=first()["choices"][::-1]))
    (found,) = rows(home)
    assert (found.options, found.answer_text) == (OPTIONS[::-1], OPTIONS[1])


def test_nothing_outside_the_clip_is_decoded(home: Path) -> None:
    write(home, first())
    film(home)
    (found,) = rows(home)
    frames = decoded(found.video, frames=100)
    numbers = {read_number(frame) for frame in frames.frames_THWC}
    assert numbers == set(range(4, 17)), "frames shown from 0.5 s to 2 s at 8 per second"


def decoded(video: VideoRef, *, frames: int) -> Frames:
    sampler = UniformSampler.Config(frames=frames).to_dict()
    policy = FramePolicy(PyavReader.Config().to_dict(), None, sampler, {"height": 48, "width": 64}, "lossless")
    (found,) = decode_clips(video.path, video.fps, [(video.start_seconds, video.end_seconds)], policy)
    assert isinstance(found, Frames), found
    return found


@pytest.mark.parametrize("pattern", ["%06d.png", "frame_%d.jpg"])
def test_dumped_frames_are_read_at_their_rate_and_from_where_the_folder_begins(home: Path, pattern: str) -> None:
    """Action Genome's tool keeps annotated frames alone: here the video's frames 3 to 24, of which 3 is shown at 0.25 s."""
    write(home, first())
    write_frame_folder(home / "videos/QX7ZT.mp4", counting_frames(24)[2:], pattern=pattern, first=3)
    (bad,) = rows(home)
    assert (bad.reason, "set star.fps_file or star.fps" in bad.detail) == ("no_fps", True)
    (found,) = rows(home, fps=FPS)
    assert found.video == VideoRef(str(home / "videos/QX7ZT.mp4"), 0.25, 1.75, fps=FPS)
    numbers = {read_number(frame) for frame in decoded(found.video, frames=100).frames_THWC}
    assert numbers == set(range(4, 17)), "the very frames of the video file"
    assert found.clues is not None
    assert {(clue.start_seconds, clue.end_seconds) for clue in found.clues} == {
        (0.25, 0.75),
        (0.25, 1.25),
        (1.25, 1.25),
    }


def test_a_folder_that_begins_after_the_clip_is_told(home: Path) -> None:
    write(home, first())
    write_frame_folder(home / "videos/QX7ZT.mp4", counting_frames(4), pattern="%06d.png", first=21)
    (bad,) = rows(home, fps=FPS)
    assert bad.reason == "bad_bounds"
    assert "start 0.5, end 2: " in bad.detail
    assert "the folder begins 2.5 s after the video" in bad.detail


@pytest.mark.parametrize(
    "write_rates", [pickle.dumps, lambda rates: json.dumps(rates).encode()], ids=["pickle", "json"]
)
def test_rates_come_from_the_official_file_in_either_format(home: Path, write_rates: Any) -> None:
    write(home, first())
    write_frame_folder(home / "videos/QX7ZT.mp4", counting_frames(24), pattern="%06d.png")
    (home / "STAR_classes" / "video_fps").write_bytes(write_rates({"QX7ZT.mp4": 8.0}))
    assert rows(home)[0].video.fps == 8.0
    elsewhere = (home / "STAR_classes" / "video_fps").rename(home / "rates")
    assert rows(home, fps_file=str(elsewhere))[0].video.fps == 8.0
    assert any(source.startswith("rates ") for source in dataset(home, fps_file=str(elsewhere)).sources())


@pytest.mark.parametrize("rate", [0, -1.0, "30", True, None], ids=repr)
def test_rates_that_cannot_be_are_named(home: Path, rate: Any) -> None:
    write(home, first())
    film(home)
    (home / "STAR_classes" / "video_fps.json").write_text(json.dumps({"QX7ZT.mp4": rate}))
    (found,) = rows(home)
    if rate is None:
        assert isinstance(found, Example), "not known: the file's own rate is taken"
        return
    assert (found.id, found.reason, found.type) == ("Sequence_T2_QX7ZT1", "bad_fps", "Sequence")
    file = home / "STAR_classes" / "video_fps.json"
    assert found.detail == f"item 1: {file}: QX7ZT.mp4 is {rate!r}, must be a number > 0"


@pytest.mark.parametrize(
    "content", [pickle.dumps({"a.mp4": 1.0})[:-3], pickle.dumps({"a.mp4": np.float64(1)}), b"{", b"", pickle.dumps([1])]
)
def test_files_of_rates_that_cannot_be_read_are_errors(home: Path, content: bytes) -> None:
    write(home, first())
    (home / "STAR_classes" / "video_fps").write_bytes(content)
    with pytest.raises(DataError, match=r"video_fps: (is neither JSON nor a pickle of plain values|must be an object)"):
        rows(home)


def test_the_test_split_has_no_answers_and_other_splits_need_them(home: Path) -> None:
    write(home, hidden(first()), split="test")
    (found,) = rows(home, split="test")
    assert (found.answer, found.clues) == (None, None)
    write(home, hidden(first()))
    (bad,) = rows(home)
    assert (bad.reason, bad.type) == ("no_answer", "Sequence")


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"question_id": "Sequence_905"}, "malformed", "question_id 'Sequence_905' is not <type>_<template>_<number>"),
        ({"question_id": "Counting_T1_5"}, "unknown_type", "starts with 'Counting', which is none of Interaction"),
        ({"question": ""}, "malformed", "question is '', must be text"),
        ({"video_id": None}, "malformed", "video_id is None, must be text"),
        ({"start": "4"}, "malformed", "start is '4', must be a number >= 0"),
        ({"end": None}, "malformed", "end is missing"),
        ({"start": 2.0, "end": 1.0}, "bad_bounds", "start 2, end 1: the clip ends at 1.0 s, not after its start"),
        ({"start": 2.0, "end": 2.0}, "bad_bounds", "start 2, end 2"),
        ({"answer": "The cup."}, "answer_outside_options", "answer 'The cup.' is none of the options ['The closet"),
        ({"answer": 1}, "no_answer", "answer is 1, must be the text of a choice"),
        ({"choices": [{"choice": "The box."}] * 2}, "ambiguous_answer", "answer 'The box.' is options [0, 1] alike"),
        ({"choices": [{"choice": "The box."}, {"choice": " "}]}, "bad_options", "choices are two or more objects"),
        ({"choices": ["The box.", "The bag."]}, "bad_options", "choices are two or more objects"),
        ({"choices": None}, "bad_options", "not None"),
    ],
)
def test_bad_rows_are_quarantined_beside_good_ones(home: Path, change: dict[str, Any], reason: str, said: str) -> None:
    write(home, question("QX7ZT", 0), first(**change), question("QX7ZT", 2))
    before, bad, after = rows(home)
    assert isinstance(before, Example)
    assert isinstance(after, Example)
    assert isinstance(bad, Quarantined)
    assert (bad.dataset, bad.path, bad.reason) == ("star", str(home / "STAR_val.json"), reason)
    assert bad.detail.startswith("item 2: ")
    assert said in bad.detail
    assert bad.type == (None if reason == "unknown_type" else "Sequence")


def test_rows_without_an_id_are_quarantined_under_their_number(home: Path) -> None:
    write(home, first(), first(question_id=None), 5)
    bad = rows(home)[1:]
    assert [(row.id, row.reason, row.type) for row in bad] == [
        ("STAR_val-2", "malformed", None), ("STAR_val-3", "malformed", None),
    ]  # fmt: skip


def test_files_that_are_wrong_as_a_whole_are_errors(home: Path) -> None:
    write(home, first(), first())
    with pytest.raises(
        DataError, match=r"STAR_val.json: item 1 and item 2 have the same question_id: Sequence_T2_QX7ZT1"
    ):
        rows(home)
    (home / "STAR_val.json").write_text((home / "STAR_val.json").read_text()[:-9])
    with pytest.raises(DataError, match=r"STAR_val.json: starts as a JSON list but is not valid JSON"):
        rows(home)
    write(home)
    with pytest.raises(DataError, match=r"STAR_val.json: empty dataset"):
        rows(home)
    with pytest.raises(DataError, match=r"star.folder: no such file: .*STAR_test.json. Did you mean"):
        rows(home, split="test")


def test_every_split_of_the_miniature_is_whole(tmp_path: Path) -> None:
    make_star(tmp_path / "star")
    for split in ("train", "val", "validation", "test"):
        settings = {"split": split, "videos": str(tmp_path / "star/Charades_v1_480")}
        found = list(StarDataset.Config(folder=str(tmp_path / "star"), **settings).build().rows())
        assert len(found) == 24
        assert all(isinstance(row, Example) for row in found)
        assert {row.answer is None for row in found} == {split == "test"}


def test_sources_follow_questions_classes_and_rates(home: Path) -> None:
    write(home, first())
    assert len(dataset(home, clues=False).sources()) == 1
    assert len(dataset(home).sources()) == 6
    (home / "STAR_classes" / "video_fps.json").write_text("{}")
    before = dataset(home).sources()
    (home / "STAR_classes" / "video_fps.json").write_text('{"QX7ZT.mp4": 8}')
    assert len(set(before) ^ set(dataset(home).sources())) == 2


def test_the_original_of_a_video_is_known(home: Path) -> None:
    assert StarDataset.source_id("/x/Charades_v1_480/QX7ZT.mp4") == "charades:QX7ZT"
