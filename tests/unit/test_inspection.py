"""What `cluenet inspect` counts, compares and calls a problem. Files that are named as videos are never opened here."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chi2

from cluenet import cli
from cluenet.errors import CluenetError, DataError, RecipeError
from cluenet.inspection import report, splits
from cluenet.inspection.facts import SplitFacts
from cluenet.plugins import load_components
from cluenet.records import Clue, Example, Quarantined, VideoRef
from cluenet.registry import register
from helpers.benchmarks.clevrer import make_clevrer, place, scene, write_clevrer_video
from helpers.benchmarks.mvbench import FILES, mvbench_row
from helpers.benchmarks.star import question
from helpers.evaluation import Silent
from helpers.listed import write_rows

OPTIONS = ("yes", "no", "maybe")


def example(number: int, **changes: Any) -> Example:
    values = {"options": OPTIONS, "answer": number % 3, "type": "T", "video": VideoRef(f"v{number}.mp4"), **changes}
    return Example(id=f"q{number}", dataset="listed", question="does it move?", **values)


def facts(*rows: Example | Quarantined) -> SplitFacts:
    found = SplitFacts()
    for row in rows:
        found.add(row)
    return found


def inspected(name: str, *words: str, against: tuple[str, ...] = (), **options: bool) -> dict[str, Any]:
    others = [splits.source_of(*splits.words_of(text)) for text in against]
    return report.inspect(splits.source_of(name, words), others, progress=Silent, **options)


# ---------------------------------------------------------------------------------------------------------------- counts


def test_every_row_is_usable_or_quarantined_with_its_first_detail() -> None:
    bad = [Quarantined(f"b{n}", "listed", "rows.json", reason, f"detail {n}", type="U" if n else None)
           for n, reason in enumerate(("malformed", "no_answer", "malformed"))]  # fmt: skip
    found = facts(example(0), *bad, example(1, answer=None)).to_dict({"questions": 6, "videos": 2, "T": 2, "V": 4})
    assert [found[key] for key in ("rows", "usable", "quarantined", "hidden_answers")] == [5, 2, 3, 1]
    assert found["reasons"] == {
        "malformed": {"rows": 2, "first": "rows.json: b0: detail 0"}, "no_answer": {"rows": 1, "first": "rows.json: b1: detail 1"},
    }  # fmt: skip
    assert found["types"] == {"(unknown)": 1, "T": 2, "U": 2}
    assert {what: count["found"] for what, count in found["official"].items()} == {
        "questions": 5, "videos": 2, "T": 2, "V": 0,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_positions_and_constant_answers_against_plain_python(seed: int) -> None:
    rng = random.Random(seed)
    rows = [example(n, options=OPTIONS[: rng.choice((2, 3))], answer=rng.choice((0, 0, 1))) for n in range(200)]
    found = facts(*rows, example(999, answer=None), example(998, options=(), answer="free text")).to_dict({})["answers"]
    assert found["known"] == 200
    for size in (2, 3):
        places = [row.answer for row in rows if len(row.options) == size]
        counts = [places.count(place) for place in range(size)]
        statistic = sum((count - len(places) / size) ** 2 / (len(places) / size) for count in counts)
        assert found["positions"][str(size)]["counts"] == counts
        assert found["positions"][str(size)]["p"] == pytest.approx(chi2.sf(statistic, size - 1))
    assert found["chance"] == pytest.approx(sum(1 / len(row.options) for row in rows) / 200)
    assert found["constant_position"] == {"position": 0, "accuracy": sum(row.answer == 0 for row in rows) / 200}
    assert found["constant_text"] == {"text": "yes", "accuracy": sum(row.answer_text == "yes" for row in rows) / 200}


def test_a_constant_text_may_beat_a_constant_place() -> None:
    rows = [example(n, options=("no", "yes") if n % 2 else ("yes", "no"), answer=n % 2) for n in range(10)]
    found = facts(*rows).to_dict({})["answers"]
    assert found["constant_position"] == {"position": 0, "accuracy": 0.5}
    assert found["constant_text"] == {"text": "yes", "accuracy": 1.0}
    assert found["positions"]["2"]["p"] == 1.0


def test_without_known_choices_there_is_nothing_to_guess() -> None:
    assert facts(example(0, answer=None)).to_dict({})["answers"] is None


def test_repeated_ids_and_equal_options_are_named() -> None:
    rows = [example(0), example(0, options=("a  b", "A b", "c")), example(1, options=("a", "b", "c"))]
    found = facts(*rows, Quarantined("q1", "listed", "f", "malformed", "d")).to_dict({})
    assert found["repeated_ids"] == {"count": 2, "first": ["q0", "q1"]}
    assert found["equal_options"] == {"count": 1, "first": ["q0"]}


def test_clue_labels_are_counted() -> None:
    clues = (Clue("it moves", 0.0, 1.0, concepts={"who": "it"}), Clue("it stops"))
    found = facts(example(0, clues=clues, chain="so"), example(1, clues=()), example(2)).to_dict({})["labels"]
    assert found == {"answer": 3, "chain": 1, "clues": 2, "clues in all": 2, "concepts": 1, "times": 1}


# ---------------------------------------------------------------------------------------------------------------- splits


def test_every_split_is_read_once_and_compared_with_the_official_counts(tmp_path: Path) -> None:
    make_clevrer(tmp_path, missing=(1, 15_000, 15_001))
    found = inspected("clevrer", str(tmp_path))
    assert list(found["splits"]) == ["train", "validation", "test"]
    assert found["splits"]["train"]["official"] == {"videos": {"official": 10_000, "found": 2}}
    assert [one["videos"]["missing"] for one in found["splits"].values()] == [1, 0, 2]
    assert found["splits"]["train"]["videos"]["first_missing"] == [str(place(tmp_path, "video", "train", 1, "mp4"))]
    assert (found["absent"], found["shared"], found["problems"]) == ({}, [], [])


def test_a_split_that_is_not_there_is_no_problem_and_a_damaged_one_is(tmp_path: Path) -> None:
    make_clevrer(tmp_path, splits=("train",))
    (tmp_path / "validation.json").write_text("[{")
    found = inspected("clevrer", str(tmp_path))
    assert list(found["splits"]) == ["train"]
    assert list(found["absent"]) == ["test"]
    assert "no such file" in found["absent"]["test"]
    (problem,) = found["problems"]
    assert problem.startswith("validation: ")
    assert "not valid JSON" in problem


def test_nothing_there_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clevrer.folder: no such file: .*train.json"):
        inspected("clevrer", str(tmp_path))


def test_one_split_can_be_asked_for_and_limited(tmp_path: Path) -> None:
    make_clevrer(tmp_path, missing=range(20_000))
    found = inspected("clevrer", str(tmp_path), "split=val", "max_samples=3")
    assert {name: one["rows"] for name, one in found["splits"].items()} == {"val": 3}
    assert found["splits"]["val"]["official"] == {"videos": {"official": 5_000, "found": 1}}
    assert found["settings"] == {"folder": str(tmp_path), "split": "val", "max_samples": 3}


@pytest.mark.parametrize("files", ["rows.jsonl", "{split}.jsonl"])
def test_a_dataset_that_does_not_list_its_splits_is_tried_with_the_common_ones(tmp_path: Path, files: str) -> None:
    for name in ("rows", "train", "val"):
        row = {"id": name, "video": "a.mp4", "question": "which?", "options": ["x", "y"], "answer": 0}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    found = inspected("messages", str(tmp_path / files))
    assert list(found["splits"]) == (["train"] if files == "rows.jsonl" else ["train", "val"])
    assert list(found["absent"]) == ([] if files == "rows.jsonl" else ["validation", "test"])


def test_a_dataset_of_a_third_party_is_inspected_the_same_way(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.json", [example(n) for n in range(4)] + [example(0)])
    found = inspected("listed", str(file))
    assert found["splits"]["train"]["rows"] == 5
    assert found["problems"] == ["train: ids that several rows have: q0. Give every row its own id."]


# ---------------------------------------------------------------------------------------------------------------- videos


def test_a_training_video_in_another_split_is_a_problem_by_content_only_with_hash(tmp_path: Path) -> None:
    make_clevrer(tmp_path)
    train, test = place(tmp_path, "video", "train", 1, "mp4"), place(tmp_path, "video", "test", 15_000, "mp4")
    shutil.copy(train, test)
    assert inspected("clevrer", str(tmp_path))["problems"] == []
    found = inspected("clevrer", str(tmp_path), hashed=True)
    assert found["shared"] == [{
        "first": "clevrer train", "second": "clevrer test", "videos": 1, "of": [2, 2], "by": {"content": 1},
        "examples": [f"video_00001.mp4 has the same content as {test}"],
    }]  # fmt: skip
    assert found["problems"] == [
        f"test: 1 of 2 videos are in train too: video_15000.mp4 has the same content as {train}"
    ]


def test_one_file_in_two_splits_is_one_video(tmp_path: Path) -> None:
    for split in ("train", "test"):
        row = {"id": split, "video": "a.mp4", "question": "which?", "answer": "x"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
    write_clevrer_video(tmp_path / "a.mp4", 0)
    for hashed, by in ((False, "path"), (True, "content")):
        found = inspected("messages", str(tmp_path / "{split}.jsonl"), hashed=hashed)
        assert [one["by"] for one in found["shared"]] == [{by: 1}]
        assert len(found["problems"]) == 1


def test_the_same_original_is_found_without_hash(tmp_path: Path) -> None:
    make_clevrer(tmp_path, splits=("train", "validation"), missing=range(20_000))
    row = scene("validation", 10_000) | {"video_filename": "video_00001.mp4"}
    (tmp_path / "validation.json").write_text(json.dumps([row]))
    (problem,) = inspected("clevrer", str(tmp_path))["problems"]
    assert (
        "validation: 1 of 1 videos are in train too: video_00001.mp4 is of the same original (clevrer:00001)" in problem
    )


def test_other_datasets_are_compared_by_original_and_path(tmp_path: Path) -> None:
    make_clevrer(tmp_path / "clevrer", splits=("train",), missing=(0, 1))
    rows = [
        {"id": name, "video": f"films/{name}", "question": "which?", "options": ["x", "y"], "answer": 0}
        for name in ("video_00001.mp4", "b.mp4")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine, theirs = f"clevrer {tmp_path / 'clevrer'} split=train", f"messages '{tmp_path / 'rows.jsonl'}' split=train"
    (shared,) = inspected("messages", *splits.words_of(theirs)[1], against=(mine,))["shared"]
    assert (shared["second"], shared["by"], shared["of"]) == ("clevrer train", {"path": 1}, [2, 2]), (
        "it knows no originals"
    )
    (tmp_path / "video_train").mkdir()
    (tmp_path / "train.json").write_text(json.dumps([scene("train", 1)]))
    (shared,) = inspected("clevrer", str(tmp_path), "split=train", against=(mine,))["shared"]
    assert (shared["first"], shared["second"], shared["by"]) == ("clevrer train", "clevrer train", {"original": 1})


def test_mvbench_is_compared_with_star_and_with_clevrer_whose_videos_it_asks_about(tmp_path: Path) -> None:
    (tmp_path / "mvbench").mkdir()
    for name in FILES:
        (tmp_path / "mvbench" / f"{name}.json").write_text(json.dumps([mvbench_row(name, 0)]))
    (tmp_path / "STAR_train.json").write_text(json.dumps([question("QX0ZT", 0), question("QX7ZT", 1)]))
    make_clevrer(tmp_path, splits=("validation",), missing=range(20_000), annotated=False)
    against = (f"star {tmp_path} videos={tmp_path} clues=false", f"clevrer {tmp_path} split=validation")
    charades, clevrer = inspected("mvbench", str(tmp_path / "mvbench"), against=against)["shared"]
    assert (charades["first"], charades["second"], charades["of"][1]) == ("mvbench test", "star train", 2)
    assert charades["by"] == {"original": 2}, "star/ and sta/ have a file of it each"
    assert (clevrer["second"], clevrer["by"], clevrer["of"][1]) == ("clevrer validation", {"original": 1}, 2)
    assert "of the same original (clevrer:10000)" in clevrer["examples"][0]


@pytest.mark.parametrize("name", ["nextqa", "nextgqa", "mvbench", "eventhallusion"])
def test_official_counts_of_types_add_up_to_those_of_questions(name: str) -> None:
    load_components()
    for split, counts in register.dataset[name].official_counts.items():
        types = {what: count for what, count in counts.items() if what not in ("questions", "videos")}
        if (name, split) != ("nextqa", "train"):  # its types are not published
            assert sum(types.values()) == counts["questions"]


def test_a_video_with_two_contents_is_told_as_a_problem(tmp_path: Path) -> None:
    make_clevrer(tmp_path, splits=("train", "validation"))
    film = place(tmp_path, "video", "train", 1, "mp4")
    write_clevrer_video(tmp_path / "video_train" / film.name, 7)
    (problem,) = inspected("clevrer", str(tmp_path))["problems"]
    assert problem.startswith(
        f"train: {film} and {tmp_path / 'video_train' / film.name}: one name for two different files"
    )


def test_two_copies_of_a_dataset_may_not_differ_under_one_path(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_clevrer(tmp_path / name, splits=("train",))
    both = {"against": (f"clevrer {tmp_path / 'two'}",)}
    assert inspected("clevrer", str(tmp_path / "one"), hashed=True, **both)["problems"] == []
    changed = write_clevrer_video(place(tmp_path / "two", "video", "train", 1, "mp4"), 5)
    assert inspected("clevrer", str(tmp_path / "one"), **both)["problems"] == [], "contents are not known"
    (problem,) = inspected("clevrer", str(tmp_path / "one"), hashed=True, **both)["problems"]
    assert problem == (
        f"clevrer: video_00001.mp4 names two different files: {place(tmp_path / 'one', 'video', 'train', 1, 'mp4')} and {changed}"
    )


# ------------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clever", "."], "no dataset named 'clever'. Did you mean 'clevrer'?"),
        (["clevrer"], "inspect clevrer: 1 problem\n  folder: is required"),
        (["clevrer", ".", "folders=x"], "folders: unknown key. Did you mean 'folder'?"),
        (["clevrer", ".", "fps=0"], "fps: Input should be greater than 0, not 0"),
        (["clevrer", ".", "split=tset"], "split: Input should be 'train', 'validation', 'val' or 'test', not 'tset'"),
        (["clevrer", "a", "b"], "one PATH is wanted, not a, b. Quote what belongs to --against: 'NAME PATH'"),
        (["clevrer", ".", "fps=["], "fps: cannot be set to '['"),
        (["clevrer", ".", "--against", "clevrer 'x"], '--against: "clevrer \'x": No closing quotation'),
        (["clevrer", ".", "--against", "clever x"], "no dataset named 'clever'"),
    ],
)
def test_wrong_words_are_explained(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["inspect", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_dataset_without_a_path_is_told_by_settings() -> None:
    class NoPath:
        name = "no_path"

        class Config:
            model_fields = {"split": None, "url": None}

    with pytest.raises(
        CluenetError, match=r"none of its settings takes PATH; give them as key=value. Settings: split, url"
    ):
        splits._path_setting(NoPath)  # type: ignore[arg-type]


def test_json_and_tables_say_the_same_and_problems_give_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_clevrer(tmp_path, splits=("train",), missing=(0,))
    assert cli.call(["inspect", "clevrer", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == inspected("clevrer", str(tmp_path))
    changed = scene("train", 0)
    changed["questions"][0]["answer"] = "12"
    (tmp_path / "train.json").write_text(json.dumps([changed]))
    (tmp_path / "test.json").write_text("[")
    assert cli.call(["inspect", "clevrer", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    for text in (
        "│ train │ 14   │ 13     │ 1 ",
        "answer_outside_options",
        "9999",
        "│ counterfactual │ 3    │ 21.4 │",
        "46.2 (place 1)",
    ):
        assert text in shown.out
    assert "error: clevrer: 1 problem\n  test: " in shown.err


def test_every_table_has_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clevrer(tmp_path, splits=("train", "validation"))
    cli.call(["inspect", "clevrer", str(tmp_path), "--against", f"clevrer {tmp_path} split=train"])
    shown = capsys.readouterr().out
    for title in (
        "Rows", "Against the official counts", "Types", "Where right answers stand", "What needs no video", "Videos",
        "Clues, questions with", "Splits that are not there", "Shared videos",
    ):  # fmt: skip
        assert title in shown
    for title in ("Quarantined", "Videos that cannot be read"):
        assert title not in shown, "there is none"
    assert "original 2" in shown


def test_settings_are_checked_as_recipes_are() -> None:
    with pytest.raises(RecipeError, match="videos: is required"):
        inspected("nextqa", ".")
