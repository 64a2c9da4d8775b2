"""Videos that two datasets share: the same content, or made from the same original. Ray-free.

What a model was trained on, and what its checkpoint was chosen by, must not be what it is tested on. `check` looks at the
prepared sets of a recipe before anything is trained; `data.allow_overlap` names the test sets that may overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cluenet import storage
from cluenet.contracts import Dataset
from cluenet.errors import DataError, Problem, RecipeError
from cluenet.folders import finished
from cluenet.prepared import read_account
from cluenet.recipe import Recipe
from cluenet.registry import ComponentConfig

SHOWN = 3
CONTENT, ORIGINAL, PLACE = "content", "original", "path"
_WORDS = {
    CONTENT: "has the same content as {other}",
    ORIGINAL: "is of the same original ({mark}) as {other}",
    PLACE: "has the same path ({mark}) as {other}",
}


@dataclass(frozen=True)
class Marks:
    """What one video can be recognised by; None: not known."""

    content: str | None = None  # sha256
    original: str | None = None  # `Dataset.source_id`
    path: str | None = None  # below the folder of its dataset's videos


@dataclass(frozen=True)
class Shared:
    """One video of a set that another set has too."""

    path: str
    other: str  # path in the other set
    by: str  # content, original or path
    mark: str

    def __str__(self) -> str:
        return f"{PurePath(self.path).name} {_WORDS[self.by].format(mark=self.mark, other=self.other)}"


@dataclass(frozen=True)
class VideoSet:
    """The videos of one dataset entry by path."""

    name: str  # "data.train.0 (nextqa train)"
    videos: Mapping[str, Marks]

    def shared_with(self, other: VideoSet) -> list[Shared]:
        """Each video of this set that is in the other one, by the strongest mark, in the order of their paths."""
        known = {(by, mark): path for by in (PLACE, ORIGINAL, CONTENT) for path, mark in _marks(other, by)}
        found: dict[str, Shared] = {}
        for by in (PLACE, ORIGINAL, CONTENT):  # a later mark is stronger
            for path, mark in _marks(self, by):
                if (by, mark) in known:
                    found[path] = Shared(path, known[by, mark], by, mark)
        return [found[path] for path in sorted(found)]


def _marks(videos: VideoSet, by: str) -> Iterator[tuple[str, str]]:
    for path, marks in videos.videos.items():
        if (mark := getattr(marks, by)) is not None:
            yield path, mark


@dataclass(frozen=True)
class Overlap:
    """A test set that shares videos with training or validation."""

    test: VideoSet
    seen: VideoSet
    shared: tuple[Shared, ...]

    def __str__(self) -> str:
        shown = "; ".join(map(str, self.shared[:SHOWN]))
        more = f"; and {len(self.shared) - SHOWN} more" if len(self.shared) > SHOWN else ""
        return f"{self.test.name} shares {len(self.shared)} of its {len(self.test.videos)} videos with {self.seen.name}: {shown}{more}"

    def to_dict(self) -> dict[str, str | int]:
        return {"test": self.test.name, "seen": self.seen.name, "videos": len(self.shared), "of": len(self.test.videos)}


Prepared = Mapping[str, Sequence[Path]]
"""Folders by split, in the recipe's order; one that is not finished is left out."""


def check(recipe: Recipe, prepared: Prepared) -> list[Overlap]:
    """The overlaps that the recipe allows.

    Raises RecipeError with every one that it does not allow, DataError for a damaged prepared set.
    """
    found = list(_overlaps(recipe, prepared))
    allowed = recipe.data.allow_overlap
    if problems := [_problem(index, name, one) for index, name, one in found if name not in allowed]:
        raise RecipeError(recipe.name, problems)
    return [one for _, _, one in found]


def find(recipe: Recipe, prepared: Prepared) -> list[Overlap]:
    """All overlaps, allowed or not. Raises DataError for a damaged prepared set."""
    return [one for _, _, one in _overlaps(recipe, prepared)]


def _overlaps(recipe: Recipe, prepared: Prepared) -> Iterator[tuple[int, str, Overlap]]:
    """With the number and the name of the test set's entry. Reads a footer of every part, and none where nothing is tested."""
    tests = _sets(recipe, "test", prepared["test"])
    others = ("train", "validation") if tests else ()
    trained = [one for split in others for one in _sets(recipe, split, prepared[split]).values()]
    for index, test in tests.items():
        for seen in trained:
            if shared := test.shared_with(seen):
                yield index, recipe.data.test[index].name, Overlap(test, seen, tuple(shared))


def _sets(recipe: Recipe, split: str, folders: Sequence[Path]) -> dict[int, VideoSet]:
    """By the number of the entry."""
    entries: Sequence[ComponentConfig] = getattr(recipe.data, split)
    return {
        index: VideoSet(f"data.{split}.{index} ({entry.name} {entry.split})", _prepared_videos(entry.component, folder))  # type: ignore[attr-defined]
        for index, (entry, folder) in enumerate(zip(entries, folders, strict=True))
        if finished(folder)
    }


def _prepared_videos(dataset: type[Dataset], folder: Path) -> dict[str, Marks]:
    """Those that could be read; the others are in no question."""
    return {path: Marks(sha256, dataset.source_id(path)) for path, sha256 in _hashes(folder) if sha256}


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for part in storage.sizes(folder / "clips", "part-*.parquet"):
        account = read_account(part)
        if account is None:
            raise DataError(f"{part}: damaged. Delete {storage.shown(folder)} and prepare it again.")
        yield from ((file["path"], file["sha256"]) for file in account.get("files", ()))


def _problem(index: int, name: str, overlap: Overlap) -> Problem:
    message = (
        f"{overlap}. The test would ask about videos that training has used. Remove them from one of the two, or allow it by "
        f"name: data.allow_overlap: [{name}]"
    )
    return Problem(f"data.test.{index}", message)
