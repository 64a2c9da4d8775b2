"""What grows with the number of videos, and how fast: bytes in memory, bytes on disk, files. Counts, no times; without Ray."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from cluenet import prepared
from cluenet.data.batches import CLIPS_PER_BATCH, FILES_PER_BATCH, Batch, Clips, batches
from cluenet.prepared import PreparedSet, write_index
from cluenet.records import Example, VideoRef
from helpers.memory import bytes_per_row
from helpers.synthetic import key_of, question, questions_on_disk

FEW, MANY = 300, 900


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Prepared sets by their number of clips, with a question each."""
    return {size: questions_on_disk(tmp_path_factory.mktemp("scale") / str(size), size) for size in (FEW, MANY)}


def parts_of(videos: int, clips_per_video: int = 1) -> list[Batch]:
    clips = Clips()
    for number in range(videos):
        for clip in range(clips_per_video):
            clips.add(VideoRef(f"{number:06d}.mp4", float(clip)))
    return list(batches(clips.jobs()))


class TestParts:
    def test_a_part_for_sixteen_videos(self) -> None:
        assert [len(parts_of(videos)) for videos in (16, 1600, 4800)] == [1, 100, 300]
        assert FILES_PER_BATCH == 16

    def test_a_video_of_many_clips_has_parts_of_its_own(self) -> None:
        assert len(parts_of(10, CLIPS_PER_BATCH)) == 10

    def test_what_is_asked_of_workers_is_a_few_hundred_bytes_a_video(self) -> None:
        few, many = (sum(len(batch.to_json()) for batch in parts_of(videos)) for videos in (FEW, MANY))
        assert (many - few) / (MANY - FEW) < 150


class TestPreparedSet:
    def test_the_index_is_a_few_bytes_a_clip(self, sets: dict[int, Path]) -> None:
        few, many = ((sets[size] / "index.parquet").stat().st_size for size in (FEW, MANY))
        assert (many - few) / (MANY - FEW) < 60

    def test_writing_the_index_takes_little_more_than_what_it_says(self, tmp_path: Path) -> None:
        def written(size: int) -> None:
            write_index(tmp_path, {key_of(number): ("part-00000.parquet", number) for number in range(size)})

        assert bytes_per_row(written, FEW, MANY).peak < 400

    def test_an_open_set_is_small(self, sets: dict[int, Path]) -> None:
        """In every worker of every step."""
        assert bytes_per_row(lambda size: PreparedSet(sets[size]), FEW, MANY).held < 200

    def test_questions_stay_arrow_until_they_are_asked_for(self, sets: dict[int, Path]) -> None:
        def opened(size: int) -> PreparedSet:
            found = PreparedSet(sets[size])
            assert found.num_questions_of(found.clip_keys[size // 2]) == 1
            return found

        assert bytes_per_row(opened, FEW, MANY).held < 800

    def test_counting_the_questions_of_clips_makes_none(
        self, sets: dict[int, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(row: object) -> Example:
            raise AssertionError("a question was made")

        monkeypatch.setattr(Example, "from_row", refuse)
        opened = PreparedSet(sets[FEW])
        assert sum(map(opened.num_questions_of, opened.clip_keys)) == FEW

    def test_going_through_all_questions_holds_some_at_a_time(
        self, sets: dict[int, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prepared, "QUESTIONS_AT_ONCE", 50)
        gone_through = bytes_per_row(lambda size: [None for _ in PreparedSet(sets[size]).iter_examples()], FEW, MANY)
        as_list = bytes_per_row(lambda size: PreparedSet(sets[size]).examples(), FEW, MANY)
        assert gone_through.peak < 500 < 1500 < as_list.peak

    def test_every_clip_has_its_own_questions(self, sets: dict[int, Path]) -> None:
        opened = PreparedSet(sets[MANY])
        assert all(one < other for one, other in pairwise(opened.clip_keys))
        for number in (0, 17, MANY - 1):
            key = key_of(number)
            assert opened.clip_keys[opened.number_of(key)] == key
            assert opened.examples_of(key) == [question("videos", number)]
        assert next(opened.iter_examples()) == question("videos", 0)
        for unknown in ("", key_of(MANY), "~"):
            with pytest.raises(KeyError):
                opened.num_questions_of(unknown)
