"""Which scenes belong to which split, and how they are named.

Scene `index` of a split has the seed SHA-256(world seed, split, index): splits share no seed, whatever their sizes, and a
larger split begins with the scenes of a smaller one. Size and looks do not enter the seed, so that the same scenes can
be drawn at several resolutions.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal, get_args

from cluenet.errors import DataError, suggestion
from cluenet.testing.clueworld.settings import COLOURS, WorldSettings
from cluenet.testing.clueworld.world import Scene, sample_scene

Split = Literal["train", "validation", "test", "hallucination", "ood_combinations", "ood_objects", "ood_long"]
SPLITS: tuple[Split, ...] = get_args(Split)

_EXAMPLE_ID = re.compile(r"(?P<split>[a-z_]+)-(?P<index>\d{6,})(-.+)?")


def split_settings(settings: WorldSettings, split: Split, index: int) -> WorldSettings:
    """The world of scene `index`: each out-of-distribution split changes the one thing that it is named after.

    ood_combinations: held-out combinations; ood_objects: 6 or 7 objects; ood_long: half as many steps again.
    Raises DataError where `ood_objects` cannot show more objects than the other splits.
    """
    if split == "ood_combinations":
        return settings.model_copy(update={"combinations": "held_out"})
    if split == "ood_objects":
        counts = [count for count in (6, len(COLOURS)) if count > settings.objects]
        if not counts:
            raise DataError(
                f"clueworld: split ood_objects shows more objects than the other splits, but objects: {settings.objects} "
                f"is the most there can be. Set objects to {len(COLOURS) - 1} or fewer."
            )
        return settings.model_copy(update={"objects": counts[index % len(counts)]})
    if split == "ood_long":
        return settings.model_copy(update={"steps": settings.steps * 3 // 2})
    return settings


def scene_seed(settings: WorldSettings, split: Split, index: int) -> int:
    """Seed of a scene, 64 bits."""
    digest = hashlib.sha256(f"clueworld/{settings.seed}/{split}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def split_scene(settings: WorldSettings, split: Split, index: int) -> Scene:
    """Scene `index` of a split; always the same one."""
    return sample_scene(scene_seed(settings, split, index), split_settings(settings, split, index))


def scene_id(split: Split, index: int) -> str:
    """`train-000017`: name of the scene's video, and what the ids of its questions begin with."""
    return f"{split}-{index:06d}"


def scene_of(example_id: str, settings: WorldSettings) -> Scene:
    """The scene that a question (or a video) is about, from its id alone. Raises DataError for a foreign id."""
    found = _EXAMPLE_ID.fullmatch(example_id)
    if found is None or found["split"] not in SPLITS:
        raise DataError(
            f"{example_id!r} is not the id of a clueworld question: those read <split>-<scene>-<type>, "
            f"as in train-000017-shape. {suggestion(example_id.split('-')[0], SPLITS, label='Splits')}"
        )
    return split_scene(settings, found["split"], int(found["index"]))
