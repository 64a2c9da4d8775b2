"""Everything that `cluenet inspect` finds, as JSON values.

dataset, settings
splits      {name: the facts (`SplitFacts.to_dict`), `videos` (files, missing, first_missing, and with `open` unreadable)}
absent      {split: why}, those whose files are not there
shared      videos that two splits, or a split and one of another dataset, have in common
problems    what must be repaired before the numbers of a run can be trusted
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from cluenet.inspection.facts import SHOWN
from cluenet.inspection.splits import Source, Splits, read_splits
from cluenet.inspection.videos import Hashes, hashes, marks_of, presence, readability, root_of
from cluenet.overlap import Shared, VideoSet
from cluenet.progress import Progress


class _Looked:
    """One dataset that was read, with the videos of its splits."""

    def __init__(self, source: Source, *, hashed: bool, progress: type[Progress]):
        self.source, self.splits = source, read_splits(source, progress)
        paths = {split: facts.paths() for split, facts in self.splits.read.items()}
        every = sorted({path for of_split in paths.values() for path in of_split})
        self.hashes: Hashes = hashes(every, source.name, progress) if hashed else {}
        root = root_of(every)
        self.videos = {
            split: VideoSet(f"{source.name} {split}", marks_of(source.component, of_split, root, self.hashes))
            for split, of_split in paths.items()
        }


def inspect(
    source: Source, against: Sequence[Source] = (), *, opened: bool = False, hashed: bool = False,
    progress: type[Progress] = Progress,
) -> dict[str, Any]:  # fmt: skip
    """opened: decode a frame of every clip. hashed: compare videos by content too, which reads every file whole.

    Raises DataError when no split of one of the datasets can be read, RecipeError for wrong settings.
    """
    looked = _Looked(source, hashed=hashed, progress=progress)
    others = [_Looked(other, hashed=hashed, progress=progress) for other in against]
    splits = {split: _split(looked, split, opened=opened, progress=progress) for split in looked.splits.read}
    shared = list(_shared(looked, others))
    problems = [*_row_problems(looked.splits), *_leaks(looked), *_collisions([looked, *others])]
    return {
        "dataset": source.name, "settings": dict(source.settings), "splits": splits, "absent": dict(looked.splits.absent),
        "shared": shared, "problems": problems,
    }  # fmt: skip


def _split(looked: _Looked, split: str, *, opened: bool, progress: type[Progress]) -> dict[str, Any]:
    facts, title = looked.splits.read[split], f"{looked.source.name} {split}"
    videos = presence(facts)
    if opened:
        videos["unreadable"] = readability(facts, title, progress)
    return {**facts.to_dict(looked.source.official(split)), "videos": videos}


def _shared(looked: _Looked, others: Sequence[_Looked]) -> Iterator[dict[str, Any]]:
    """Pairs with at least one video in common."""
    pairs = [*combinations(looked.videos.values(), 2)]
    pairs += [(mine, theirs) for mine in looked.videos.values() for other in others for theirs in other.videos.values()]
    for one, other in pairs:
        if found := one.shared_with(other):
            by = Counter(video.by for video in found)
            yield {
                "first": one.name, "second": other.name, "videos": len(found), "of": [len(one.videos), len(other.videos)],
                "by": dict(sorted(by.items())), "examples": [str(video) for video in found[:SHOWN]],
            }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- problems


def _row_problems(splits: Splits) -> Iterator[str]:
    yield from (f"{split}: {message}" for split, message in splits.broken.items())
    for split, facts in splits.read.items():
        if ids := facts.repeated_ids:
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            yield f"{split}: ids that several rows have: {', '.join(ids[:SHOWN])}{more}. Give every row its own id."


def _leaks(looked: _Looked) -> Iterator[str]:
    """Videos of the training split in another one."""
    for name, other in looked.videos.items():
        if name != "train" and "train" in looked.videos and (found := other.shared_with(looked.videos["train"])):
            yield f"{name}: {len(found)} of {len(other.videos)} videos are in train too: {_few(found)}"


def _collisions(looked: Sequence[_Looked]) -> Iterator[str]:
    """Files of one dataset that have the same path below its folder and another content: which of them is meant?"""
    known: dict[tuple[str, str | None], str] = {}
    for one in looked:
        marks = {path: found for videos in one.videos.values() for path, found in videos.videos.items()}
        for path in sorted(one.hashes):
            first = known.setdefault((one.source.name, marks[path].path), path)
            if _content(looked, first) != one.hashes[path]:
                yield f"{one.source.name}: {marks[path].path} names two different files: {first} and {path}"


def _content(looked: Sequence[_Looked], path: str) -> str | None:
    return next((one.hashes[path] for one in looked if path in one.hashes), None)


def _few(found: Sequence[Shared]) -> str:
    return "; ".join(map(str, found[:SHOWN])) + ("; ..." if len(found) > SHOWN else "")
