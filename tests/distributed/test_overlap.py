"""Videos shared by sets that were really prepared: a copy under another name is found by its content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

from cluenet.data.prepare import prepare
from cluenet.errors import RecipeError
from cluenet.overlap import check
from cluenet.planning import Split
from cluenet.recipe import Recipe
from cluenet.records import Example, VideoRef
from cluenet.testing.videos import counting_frames, write_garbage, write_video
from helpers.listed import write_rows

pytestmark = pytest.mark.usefixtures("ray_session")


def entry(tmp_path: Path, split: str, *videos: Path) -> dict[str, Any]:
    rows = [
        Example(f"{split}{number}", "listed", VideoRef(str(video)), "does it move?", ("yes", "no"), 0)
        for number, video in enumerate(videos)
    ]
    return {"name": "listed", "split": split, "file": str(write_rows(tmp_path / f"{split}.json", rows))}


def test_a_copy_of_a_training_video_is_found_in_the_test_set(tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"{n}.mp4", counting_frames(8 + n), fps=8) for n in range(3)]
    copy, bad = Path(shutil.copy(videos[0], tmp_path / "copy.mp4")), write_garbage(tmp_path / "bad.mp4")
    data = {
        "sampler": {"name": "uniform", "frames": 2}, "size": {"height": 32, "width": 32}, "reader": "pyav",
        "fallback_reader": None, "decode_workers": 1, "train": [entry(tmp_path, "train", *videos[:2], bad)],
        "test": [entry(tmp_path, "test", videos[2], copy, bad)],
    }  # fmt: skip
    recipe = Recipe.from_dict({"store": str(tmp_path / "store"), "plugins": ["helpers.listed"], "data": data})
    prepared = {split: [prepare(recipe, one) for one in getattr(recipe.data, split)] for split in get_args(Split)}
    with pytest.raises(RecipeError) as error:
        check(recipe, prepared)
    (problem,) = error.value.problems
    assert problem.message.startswith(
        "data.test.0 (listed test) shares 1 of its 2 videos with data.train.0 (listed train): copy.mp4 has the same content as "
        f"{videos[0]}. "
    )
