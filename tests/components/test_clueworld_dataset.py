"""The `clueworld` dataset: generates what is missing, finds what is there, and brings clues, distractors and chains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluenet.errors import DataError
from cluenet.records import Example
from cluenet.registry import register
from cluenet.testing.clueworld import TYPES, YES_NO_TYPES, WorldSettings, scene_examples, write_clueworld
from cluenet_components.clue_sources.annotated import AnnotatedClues
from cluenet_components.clue_sources.file import FileClues
from cluenet_components.datasets.clueworld import ClueWorld
from cluenet_components.datasets.messages import MessagesDataset


def dataset(folder: Path, **settings: Any) -> ClueWorld:
    return ClueWorld.Config(**{"folder": str(folder), "videos": 3, "workers": 1, **settings}).build()


def examples(data: ClueWorld) -> list[Example]:
    found = list(data.rows())
    assert all(isinstance(row, Example) for row in found)
    return found  # type: ignore[return-value]


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_rows_bring_videos_that_exist_and_all_labels(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    found = examples(data)
    assert found == [e for i in range(3) for e in scene_examples(data.folder, "train", i, WorldSettings())]
    assert len({example.id for example in found}) == len(found) >= 9
    for example in found:
        assert Path(example.video.path).stat().st_size > 1000
        assert example.dataset == "clueworld"
        assert example.clues is not None
        assert example.chain
        assert AnnotatedClues(AnnotatedClues.Config()).attach(example) == example
        assert Example.from_row(example.to_row()) == example


def test_videos_are_made_once_whatever_is_asked_about_them(tmp_path: Path) -> None:
    examples(dataset(tmp_path))
    before = stamps(tmp_path)
    assert len(before) == 3
    again = examples(dataset(tmp_path, types=["who", "shape"], questions_per_video=1, max_samples=2, weight=2.0))
    assert len(again) == 3
    assert stamps(tmp_path) == before
    examples(dataset(tmp_path, videos=5))
    assert len(stamps(tmp_path)) == 5
    assert before.items() <= stamps(tmp_path).items()


@pytest.mark.parametrize("change", [{"seed": 1}, {"cell": 32}, {"noise": 5.0}, {"steps": 9}])
def test_other_worlds_have_other_folders(tmp_path: Path, change: dict[str, Any]) -> None:
    first, second = dataset(tmp_path), dataset(tmp_path, **change)
    assert first.folder != second.folder
    assert first.sources() != second.sources()


def test_sources_say_what_the_rows_depend_on_besides_their_place() -> None:
    plain = dataset(Path("a")).sources()
    assert plain == dataset(Path("b"), workers=2).sources()
    assert plain != dataset(Path("a"), types=["who"]).sources()
    assert any(str(ClueWorld.version) in source for source in plain)


def test_each_split_asks_its_types_unless_told_otherwise(tmp_path: Path) -> None:
    assert {e.type for e in examples(dataset(tmp_path, videos=12))} == set(TYPES)
    assert {e.type for e in examples(dataset(tmp_path, split="hallucination"))} == set(YES_NO_TYPES)
    assert {e.type for e in examples(dataset(tmp_path, split="test", types=["count", "exists_event"]))} == {
        "count",
        "exists_event",
    }


def test_a_world_without_room_for_more_objects_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Set objects to 6 or fewer"):
        list(dataset(tmp_path, split="ood_objects", objects=7).rows())
    assert not stamps(tmp_path)


def test_settings_are_checked_with_what_is_allowed() -> None:
    parse = register.dataset["clueworld"].Config
    with pytest.raises(ValidationError, match="'train', 'validation', 'test'"):
        parse(split="dev")
    with pytest.raises(ValidationError, match="'shape', 'count'"):
        parse(types=["colour"])
    with pytest.raises(ValidationError, match="greater than or equal to 5"):
        parse(objects=2)
    assert parse().to_dict() == {
        "name": "clueworld",
        **WorldSettings().model_dump(),
        **{"split": "train", "videos": 200, "folder": "~/.cache/cluenet/clueworld", "workers": None},
        **{"max_samples": None, "weight": 1.0},
    }


def test_written_files_read_back_through_messages_and_file_clues_as_the_same_examples(tmp_path: Path) -> None:
    """The two formats others use say everything that the dataset itself says."""
    for split in ("train", "hallucination"):
        write_clueworld(tmp_path, split, 4)  # type: ignore[arg-type]
        clues = FileClues(FileClues.Config(path=str(tmp_path / f"{split}.clues.jsonl")))
        rows = MessagesDataset.Config(files=str(tmp_path / f"{split}.jsonl"), label="clueworld").build().rows()
        read = [clues.attach(row) for row in rows]
        expected = examples(dataset(tmp_path / "cache", split=split, videos=4))
        assert [replace(e, video=None) for e in read] == [replace(e, video=None) for e in expected]  # type: ignore[arg-type]
        assert [Path(e.video.path).name for e in read] == [Path(e.video.path).name for e in expected]
        assert all(Path(e.video.path).is_file() for e in read)
        assert clues.summary()["unused"] == 0
