"""ClueWorld: short videos of coloured shapes whose every event is known, with questions, clues and chains.

    from cluenet.testing.clueworld import WorldSettings, split_scene, render, questions_of, write_clueworld
"""

from cluenet.testing.clueworld.questions import questions_of
from cluenet.testing.clueworld.render import render
from cluenet.testing.clueworld.settings import COLOURS, SHAPES, TYPES, YES_NO_TYPES, WorldSettings
from cluenet.testing.clueworld.splits import SPLITS, Split, scene_of, split_scene
from cluenet.testing.clueworld.world import Event, Scene, sample_scene
from cluenet.testing.clueworld.writer import write_clueworld

__all__ = [
    "COLOURS", "SHAPES", "SPLITS", "TYPES", "YES_NO_TYPES", "Event", "Scene", "Split", "WorldSettings",
    "questions_of", "render", "sample_scene", "scene_of", "split_scene", "write_clueworld",
]  # fmt: skip
