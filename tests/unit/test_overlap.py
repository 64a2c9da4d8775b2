"""Videos that sets share, by content and by original, and what a recipe says about it. Without videos and without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError, RecipeError
from cluenet.folders import write_manifest
from cluenet.overlap import Marks, VideoSet, check
from cluenet.prepared import ClipWriter, atomic_file
from cluenet.recipe import Recipe
from cluenet.run import Run

CLEVRER = {"name": "clevrer", "folder": "clevrer"}


def prepared(folder: Path, videos: dict[str, str], *, parts: int = 1) -> Path:
    """A prepared set's clips: {path: sha256}, spread over parts; no sha256 where the video could not be read."""
    rows = list(videos.items())
    for number in range(parts):
        with atomic_file(folder / "clips" / f"part-{number:05d}-x.parquet") as file:
            files = [{"path": path, "sha256": sha256} for path, sha256 in rows[number::parts]]
            ClipWriter(file).close({"files": files})
    write_manifest(folder, {})
    return folder


def recipe(*, train: list[Any] = (), validation: list[Any] = (), test: list[Any] = (), **data: Any) -> Recipe:  # type: ignore[assignment]
    splits = {"train": list(train), "validation": list(validation), "test": list(test)}
    return Recipe.from_dict({"name": "films", "data": {**splits, **data}})


def messages(split: str) -> dict[str, str]:
    return {"name": "messages", "split": split, "files": f"{split}.jsonl"}


def test_marks_are_compared_and_the_strongest_one_is_told() -> None:
    one = VideoSet("one", {
        "a/1.mp4": Marks("s1", "x:1", "1.mp4"), "a/2.mp4": Marks("s2", "x:2", "2.mp4"), "a/3.mp4": Marks(None, None, "3.mp4"),
        "a/4.mp4": Marks("s4", None, None), "a/5.mp4": Marks(None, None, None),
    })  # fmt: skip
    other = VideoSet("other", {
        "b/1.mp4": Marks("s1", "x:1", "1.mp4"), "b/q.mp4": Marks("s9", "x:2", "q.mp4"), "b/3.mp4": Marks("s8", "x:8", "3.mp4"),
        "b/z.mp4": Marks(None, None, None),
    })  # fmt: skip
    assert [(found.path, found.other, found.by, found.mark) for found in one.shared_with(other)] == [
        ("a/1.mp4", "b/1.mp4", "content", "s1"), ("a/2.mp4", "b/q.mp4", "original", "x:2"),
        ("a/3.mp4", "b/3.mp4", "path", "3.mp4"),
    ]  # fmt: skip
    assert len(other.shared_with(one)) == 3
    assert [str(found) for found in one.shared_with(other)] == [
        "1.mp4 has the same content as b/1.mp4", "2.mp4 is of the same original (x:2) as b/q.mp4",
        "3.mp4 has the same path (3.mp4) as b/3.mp4",
    ]  # fmt: skip


def test_the_same_content_in_train_and_test_is_an_error_that_names_both_entries(tmp_path: Path) -> None:
    train = prepared(tmp_path / "train", {f"t/{n}.mp4": f"sha{n}" for n in range(8)}, parts=3)
    test = prepared(tmp_path / "test", {f"e/{n}.mp4": f"sha{n}" for n in range(3, 12)}, parts=2)
    made = recipe(train=[messages("other"), messages("train")], test=[messages("test")])
    folders = {"train": [prepared(tmp_path / "other", {"o.mp4": "sha"}), train], "validation": [], "test": [test]}
    with pytest.raises(RecipeError) as error:
        check(made, folders)
    (problem,) = error.value.problems
    assert problem.path == "data.test.0"
    for part in (
        "data.test.0 (messages test) shares 5 of its 9 videos with data.train.1 (messages train): 3.mp4 has the same content as",
        "t/3.mp4; 4.mp4", "; and 2 more. ", "data.allow_overlap: [messages]",
    ):  # fmt: skip
        assert part in problem.message
    assert "7.mp4" not in problem.message


def test_validation_may_not_be_tested_on_and_may_be_trained_on(tmp_path: Path) -> None:
    same = {"a.mp4": "sha"}
    folders = [prepared(tmp_path / split, same) for split in ("train", "validation", "test")]
    made = recipe(train=[messages("train")], validation=[messages("validation")])
    assert check(made, {"train": folders[:1], "validation": folders[1:2], "test": []}) == []
    made = recipe(validation=[messages("validation")], test=[messages("test")])
    with pytest.raises(RecipeError, match=r"with data.validation.0 \(messages validation\)"):
        check(made, {"train": [], "validation": folders[1:2], "test": folders[2:]})


def test_another_file_of_the_same_original_is_found_by_its_dataset(tmp_path: Path) -> None:
    train = prepared(tmp_path / "train", {"a/video_00007.mp4": "sha1", "a/video_00008.mp4": "sha2"})
    test = prepared(tmp_path / "test", {"cut/video_00007.webm": "sha3", "cut/video_10000.webm": "sha4"})
    folders = {"train": [train], "validation": [], "test": [test]}
    with pytest.raises(
        RecipeError, match=r"shares 1 of its 2 .* video_00007.webm is of the same original \(clevrer:00007\)"
    ):
        check(recipe(train=[CLEVRER], test=[{**CLEVRER, "split": "validation"}]), folders)
    assert check(recipe(train=[messages("train")], test=[messages("test")]), folders) == [], (
        "messages knows no originals"
    )


@pytest.mark.parametrize(
    ("trained", "train", "test", "original"),
    [
        ({**CLEVRER, "split": "validation"}, "video_validation/video_10000-11000/video_10009.mp4",
         "video/clevrer/video_validation/video_10009.mp4", "clevrer:10009"),
        ({"name": "star", "folder": "star", "videos": "films"}, "Charades_v1_480/QX7ZT.mp4",
         "video/star/Charades_v1_480/QX7ZT.mp4", "charades:QX7ZT"),
        ({"name": "star", "folder": "star", "videos": "films"}, "frames/QX7ZT.mp4",
         "video/sta/sta_video_segment/QX7ZT_4.2_13.8.mp4", "charades:QX7ZT"),
    ],
)  # fmt: skip
def test_mvbench_is_not_tested_on_what_it_was_made_from(
    tmp_path: Path, trained: dict[str, str], train: str, test: str, original: str
) -> None:
    folders = {
        "train": [prepared(tmp_path / "train", {train: "sha1"})], "validation": [],
        "test": [prepared(tmp_path / "test", {test: "sha2", "video/perception/videos/video_10009.mp4": "sha3"})],
    }  # fmt: skip
    mvbench = {"name": "mvbench", "folder": "mvbench"}
    with pytest.raises(
        RecipeError, match=rf"\(mvbench test\) shares 1 of its 2 videos .* same original \({original}\)"
    ):
        check(recipe(train=[trained], test=[mvbench]), folders)
    assert len(check(recipe(train=[trained], test=[mvbench], allow_overlap=["mvbench"]), folders)) == 1


def test_allowed_by_name_it_is_told_and_returned(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one", {"a.mp4": "sha", "b.mp4": "sha2"})
    folders = {"train": [one], "validation": [], "test": [prepared(tmp_path / "two", {"c.mp4": "sha"})]}
    made = recipe(train=[messages("train")], test=[messages("test")], allow_overlap=["messages"])
    (found,) = check(made, folders)
    assert found.to_dict() == {
        "test": "data.test.0 (messages test)", "seen": "data.train.0 (messages train)", "videos": 1, "of": 1,
    }  # fmt: skip
    assert str(found).endswith("data.train.0 (messages train): c.mp4 has the same content as a.mp4")


def test_every_test_set_needs_its_own_permission(tmp_path: Path) -> None:
    train = prepared(tmp_path / "one", {"video_00001.mp4": "sha"})
    tests = [prepared(tmp_path / str(number), {"video_00001.mp4": "sha"}) for number in range(2)]
    made = recipe(train=[messages("train")], test=[messages("test"), CLEVRER], allow_overlap=["messages"])
    with pytest.raises(RecipeError) as error:
        check(made, {"train": [train], "validation": [], "test": tests})
    assert [problem.path for problem in error.value.problems] == ["data.test.1"]


def test_permission_for_what_is_not_tested_on_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"allow_overlap: no dataset of data.test is named clevrer. Named there: messages"
    ):
        recipe(test=[messages("test")], allow_overlap=["clevrer"])


def test_scoring_a_trained_model_on_what_it_saw_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test sets may be chosen after training; of a training set that is no longer there nothing can be told."""
    folders = {
        split: [prepared(tmp_path / split, {f"{split}.mp4": "sha"})] for split in ("train", "validation", "test")
    }
    (folders["validation"][0] / "manifest.json").unlink()
    write_manifest(tmp_path / "run" / "model", {})
    made = recipe(train=[messages("train")], validation=[messages("validation")], test=[messages("test")])
    said: list[str] = []
    run = Run(made, say=said.append)
    run.plan.__dict__["run"] = tmp_path / "run"
    monkeypatch.setattr(run.plan, "prepared", folders.__getitem__)
    monkeypatch.setattr(run, "_evaluate", lambda model, out: {"model": model, "out": out})
    assert run.results_of_trained() == {"model": tmp_path / "run" / "model", "out": tmp_path / "run" / "evaluation"}
    (line,) = said
    assert line.startswith(
        "note: data.test.0 (messages test) shares 1 of its 1 videos with data.train.0 (messages train): test.mp4"
    )


def test_videos_that_could_not_be_read_are_in_no_question(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "one", {"video_00001.mp4": ""})
    folders = {"train": [folder], "validation": [], "test": [folder]}
    assert check(recipe(train=[CLEVRER], test=[CLEVRER]), folders) == []


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "one", {"a.mp4": "sha"})
    part = folder / "clips" / "part-00000-x.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"part-00000-x.parquet: damaged. Delete .*one and prepare it again"):
        made = recipe(train=[messages("train")], test=[messages("test")])
        check(made, {"train": [folder], "validation": [], "test": [prepared(tmp_path / "test", {"b.mp4": "other"})]})


def test_no_part_is_opened_where_nothing_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(part: Path) -> None:
        raise AssertionError(f"{part} was opened")

    monkeypatch.setattr("cluenet.overlap.read_account", refuse)
    folder = prepared(tmp_path / "train", {"a.mp4": "sha"})
    with pytest.raises(AssertionError, match="was opened"):
        check(
            recipe(train=[messages("train")], test=[messages("test")]),
            {"train": [folder], "validation": [], "test": [folder]},
        )
    assert check(recipe(train=[messages("train")]), {"train": [folder], "validation": [], "test": []}) == []
