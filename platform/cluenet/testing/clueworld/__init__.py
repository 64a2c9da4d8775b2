"""ClueWorld, the embedded benchmark: short videos of coloured shapes of which every event is known.

    settings = WorldSettings()
    scene = split_scene(settings, "train", 17)  # or sample_scene(seed, settings), or scene_of("train-000017-who", settings)
    frames_THWC = render_scene(scene)
    write_clueworld("data/clueworld", "train", 200, settings)  # encoded videos, questions, clues

Nothing here imports torch or Ray.
"""

from cluenet.testing.clueworld.questions import questions_of
from cluenet.testing.clueworld.render import patch_labels, render_scene
from cluenet.testing.clueworld.settings import (
    COLOURS,
    GENERATOR_VERSION,
    HELD_OUT,
    SHAPES,
    TYPES,
    YES_NO_TYPES,
    QuestionType,
    WorldSettings,
)
from cluenet.testing.clueworld.splits import SPLITS, Split, scene_of, scene_seed, split_scene, split_settings
from cluenet.testing.clueworld.world import Event, Scene, sample_scene
from cluenet.testing.clueworld.writer import scene_examples, write_clueworld, write_videos

__all__ = [
    "COLOURS",
    "GENERATOR_VERSION",
    "HELD_OUT",
    "SHAPES",
    "SPLITS",
    "TYPES",
    "YES_NO_TYPES",
    "Event",
    "QuestionType",
    "Scene",
    "Split",
    "WorldSettings",
    "patch_labels",
    "questions_of",
    "render_scene",
    "sample_scene",
    "scene_examples",
    "scene_of",
    "scene_seed",
    "split_scene",
    "split_settings",
    "write_clueworld",
    "write_videos",
]
