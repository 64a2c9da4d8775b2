"""Where clues come from: the dataset itself, or a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.records import Box, Clue, Example, VideoRef
from cluenet_components.clue_sources.annotated import AnnotatedClues
from cluenet_components.clue_sources.file import FileClues


def example(example_id: str = "q1", dataset: str = "nextqa", **labels: Any) -> Example:
    return Example(example_id, dataset, VideoRef("a.mp4"), "why?", ("x", "y"), 0, **labels)


def write(tmp_path: Path, *rows: Any) -> Path:
    file = tmp_path / "clues.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def source(file: Path) -> FileClues:
    return FileClues.Config(path=str(file)).build()


FULL = {
    "id": "q1",
    "clues": [
        {
            "text": "the ball hits the cup",
            "start_seconds": 1,
            "end_seconds": 2.5,
            "boxes": [{"seconds": 1.5, "x1": 0, "y1": 0.2, "x2": 0.4, "y2": 1}],
            "concepts": {"who": "ball", "what": "hits", "whom": "cup"},
        }
    ],
    "distractors": [{"text": "a dog sleeps"}],
    "chain": "The ball hits the cup, so it falls.",
}


@pytest.mark.parametrize("clues", [None, (), (Clue("it yawns"),)])
def test_annotated_keeps_what_the_dataset_brings(clues: Any) -> None:
    given = example(clues=clues, distractors=(Clue("a dog"),), chain="so")
    kept = AnnotatedClues.Config().build()
    assert kept.attach(given) == given
    assert kept.sources() == []


def test_file_brings_every_label(tmp_path: Path) -> None:
    found = source(write(tmp_path, FULL)).attach(example(clues=(Clue("from the dataset"),)))
    clue = Clue(
        "the ball hits the cup",
        1.0,
        2.5,
        (Box(1.5, 0.0, 0.2, 0.4, 1.0),),
        {"who": "ball", "what": "hits", "whom": "cup"},
    )
    assert found == example(clues=(clue,), distractors=(Clue("a dog sleeps"),), chain=FULL["chain"])
    assert Example.from_row(found.to_row()) == found


def test_file_tells_unlabelled_from_no_clue_needed(tmp_path: Path) -> None:
    clues = source(write(tmp_path, {"id": "q1", "clues": []}, {"id": "q2", "clues": None, "chain": "so"}))
    labelled = (Clue("from the dataset"),)
    assert clues.attach(example("q1", clues=labelled)).clues == ()
    assert clues.attach(example("q2", clues=labelled)).clues is None
    assert clues.attach(example("q2")).chain == "so"
    assert clues.attach(example("q3", clues=labelled, distractors=labelled, chain="x")) == example("q3")


def test_file_prefers_the_entry_of_the_dataset(tmp_path: Path) -> None:
    rows = [{"id": name, "clues": [{"text": name}]} for name in ("q1", "star/q1")]
    clues = source(write(tmp_path, *rows))
    assert clues.attach(example("q1", "star")).clues == (Clue("star/q1"),)
    assert clues.attach(example("q1", "nextqa")).clues == (Clue("q1"),)


def test_file_counts_entries_no_example_has(tmp_path: Path) -> None:
    clues = source(write(tmp_path, *({"id": f"q{number}", "clues": []} for number in range(4))))
    assert clues.summary() == {"entries": 4, "used": 0, "unused": 4}
    for example_id in ("q1", "q1", "q9"):
        clues.attach(example(example_id))
    assert clues.summary() == {"entries": 4, "used": 1, "unused": 3}
    assert clues.unused_ids() == ["q0", "q2", "q3"]


def clue(**fields: Any) -> dict[str, Any]:
    return {"id": "q1", "clues": [{"text": "it yawns"} | fields]}


BOX = FULL["clues"][0]["boxes"][0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{oops", ":2: Invalid JSON"),
        ("[]", ":2: Input should be an object, not []"),
        ({"clues": []}, ":2: id: is required"),
        ({"id": "q1"}, ":2: clues: is required"),
        ({"id": "", "clues": []}, ":2: id: String should have at least 1 character"),
        ({"id": 7, "clues": []}, ":2: id: Input should be a valid string, not 7"),
        ({"id": "q1", "clues": [], "distractor": []}, "distractor: unknown key. Did you mean 'distractors'? Known: chain, "),
        ({"id": "q1", "clues": [], "chain": ""}, ":2: chain: String should have"),
        (clue(start=1), ":2: clues.0.start: unknown key. Known: boxes, concepts, end_seconds, start_seconds, text."),
        (clue(text=" "), ":2: clues.0: a clue needs text"),
        (clue(start_seconds=1), ":2: clues.0: clue 'it yawns' has only one of start_seconds and end_seconds"),
        (clue(start_seconds=3, end_seconds=2), ":2: clues.0: clue 'it yawns' ends before it starts"),
        (clue(start_seconds="3", end_seconds=4), ":2: clues.0.start_seconds: Input should be a valid number, not '3'"),
        ('{"id": "q1", "clues": [{"text": "x", "start_seconds": NaN, "end_seconds": 1}]}', "clues.0.start_seconds: Input should be a finite number"),
        (clue(concepts={"why": "x"}), ":2: clues.0: clue 'it yawns' has unknown roles ['why']; known: ('who',"),
        (clue(concepts={"who": "the dog"}), ":2: clues: clue 0: concepts.who is 'the dog', must be one word"),
        (clue(boxes=[BOX | {"x2": 1.4}]), ":2: clues.0.boxes.0: box (0.0, 0.2, 1.4, 1.0) is not 0 <= x1 < x2 <= 1"),
        (clue(boxes=[BOX | {"seconds": -1}]), "seconds are -1.0, must be >= 0"),
        (clue(boxes=[BOX | {"z": 1}]), ":2: clues.0.boxes.0.z: unknown key. Known: seconds, x1, x2, y1, y2."),
        (clue(boxes=[{"x1": 0}]), ":2: clues.0.boxes.0.seconds: is required"),
        ({"id": "q1", "clues": [], "distractors": [{"text": 3}]}, ":2: distractors.0.text: Input should be a valid string, not 3"),
        ({"id": "q0", "clues": []}, ":2: id: 'q0' stands on line 1 already; keep one"),
    ],
)  # fmt: skip
def test_file_problems_say_where_what_and_what_is_allowed(tmp_path: Path, row: Any, said: str) -> None:
    file = write(tmp_path, {"id": "q0", "clues": []}, row)
    with pytest.raises(DataError) as error:
        source(file).attach(example())
    assert str(file) in str(error.value)
    assert said in str(error.value)


def test_file_lists_all_problems_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, clue(start=1), "{", {"id": "q2", "clues": [{}, {"text": 1}]})
    with pytest.raises(DataError, match="4 problems") as error:
        source(file).summary()
    lines = str(error.value).splitlines()
    assert [line.split(str(file))[1].split(": ")[0] for line in lines[1:]] == [":1", ":2", ":3", ":3"]
    with pytest.raises(DataError, match="and 80 more"):
        source(write(tmp_path, *["{"] * 100)).summary()


def test_missing_and_empty_files_are_errors(tmp_path: Path) -> None:
    file = write(tmp_path)
    with pytest.raises(DataError, match=r"clues.jsonl: empty"):
        source(file).summary()
    with pytest.raises(DataError, match=r"file.path: no such file: .*cleus.jsonl. Did you mean 'clues.jsonl'\?"):
        source(tmp_path / "cleus.jsonl").sources()


def test_sources_follow_the_content(tmp_path: Path) -> None:
    before = source(write(tmp_path, FULL)).sources()
    assert before == source(write(tmp_path, FULL)).sources()
    assert before != source(write(tmp_path, FULL | {"chain": "other"})).sources()
