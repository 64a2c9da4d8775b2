"""ClueWorld: short videos of coloured shapes whose every event is known, with questions, clues and chains.

    from cluenet.testing.clueworld import WorldSettings, sample_scene, render, questions_of, write_clueworld
"""

from cluenet.testing.clueworld.questions import TYPES, YES_NO_TYPES, questions_of
from cluenet.testing.clueworld.render import render
from cluenet.testing.clueworld.scene import Event, Scene, sample_scene
from cluenet.testing.clueworld.settings import COLOURS, SHAPES, SPLITS, WorldSettings, scene_seed
from cluenet.testing.clueworld.writer import write_clueworld

__all__ = [
    "COLOURS", "SHAPES", "SPLITS", "TYPES", "YES_NO_TYPES", "Event", "Scene", "WorldSettings",
    "questions_of", "render", "sample_scene", "scene_seed", "write_clueworld",
]  # fmt: skip
