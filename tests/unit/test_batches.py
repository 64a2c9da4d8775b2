"""Grouping of clips: every clip once, files together, the same batches whatever the order of the questions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cluenet.data.batches import CLIPS_PER_BATCH, FILES_PER_BATCH, Batch, Clips, FileJob, Span, batches
from cluenet.records import VideoRef

videos = st.lists(
    st.builds(
        VideoRef,
        path=st.integers(0, 60).map("videos/{}.mp4".format),
        start_seconds=st.integers(0, 40).map(float),
        end_seconds=st.one_of(st.none(), st.integers(41, 60).map(float)),
        fps=st.sampled_from([None, 10.0]),
    ),
    max_size=120,
)


def grouped(refs: list[VideoRef]) -> list[Batch]:
    clips = Clips()
    for ref in refs:
        clips.add(ref)
    return list(batches(clips.jobs()))


def asked(refs: list[VideoRef]) -> set[tuple[str, float | None, Span]]:
    return {(ref.path, ref.fps, Span(ref.start_seconds, ref.end_seconds)) for ref in refs}


@settings(max_examples=50, deadline=None)
@given(videos, st.randoms())
def test_every_clip_is_in_one_batch_whatever_the_order(refs: list[VideoRef], random) -> None:
    work = grouped(refs)
    found = [(job.path, job.fps, span) for batch in work for job in batch.jobs for span in job.spans]
    assert len(found) == len(set(found))
    assert set(found) == asked(refs)
    assert [batch.number for batch in work] == list(range(len(work)))
    assert all(len(batch.jobs) <= FILES_PER_BATCH for batch in work)
    shuffled = list(refs)
    random.shuffle(shuffled)
    assert grouped(shuffled) == work


@settings(max_examples=20, deadline=None)
@given(videos)
def test_json_round_trip_keeps_the_name_of_the_part(refs: list[VideoRef]) -> None:
    for batch in grouped(refs):
        again = Batch.from_json(batch.to_json())
        assert again == batch
        assert again.part == batch.part


def test_all_clips_of_a_file_are_one_job() -> None:
    refs = [VideoRef("a.mp4", float(start), start + 5.0) for start in (9, 3, 6, 3)] + [VideoRef("a.mp4")]
    (batch,) = grouped(refs)
    (job,) = batch.jobs
    assert [(span.start_seconds, span.end_seconds) for span in job.spans] == [(0, None), (3, 8), (6, 11), (9, 14)]


def test_a_file_with_very_many_clips_is_split_to_bound_memory() -> None:
    work = grouped([VideoRef("a.mp4", float(start)) for start in range(2 * CLIPS_PER_BATCH + 1)])
    assert [len(batch.jobs[0].spans) for batch in work] == [CLIPS_PER_BATCH, CLIPS_PER_BATCH, 1]


def test_the_part_is_named_by_what_is_asked_for() -> None:
    def part(path: str = "a", fps: float | None = None, start: float = 0.0, end: float | None = None) -> str:
        return Batch(0, (FileJob(path, fps, (Span(start, end),)),)).part

    names = {part(), part(path="b"), part(fps=2.0), part(start=1.0), part(end=3.0), Batch(1, ()).part}
    assert len(names) == 6
