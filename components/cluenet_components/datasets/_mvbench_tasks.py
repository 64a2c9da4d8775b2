"""The 20 tasks of MVBench and where their videos lie, as `data_list` of the official notebook has it.

Every task also lists how copies of the set lay its videos out: re-encoded (`ssv2_video_mp4`), converted, or cut to their
bounds beforehand (`Charades_segment`; named `<video>_<start>_<end>`), which must not be cut a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TaskName = Literal[
    "Action Sequence", "Action Prediction", "Action Antonym", "Fine-grained Action", "Unexpected Action", "Object Existence",
    "Object Interaction", "Object Shuffle", "Moving Direction", "Action Localization", "Scene Transition", "Action Count",
    "Moving Count", "Moving Attribute", "State Change", "Fine-grained Pose", "Character Order", "Egocentric Navigation",
    "Episodic Reasoning", "Counterfactual Inference",
]  # fmt: skip
TASKS: tuple[TaskName, ...] = get_args(TaskName)
QUESTIONS = 200
"""Of every task."""


@dataclass(frozen=True)
class Layout:
    """A folder of videos, or with `fps` of folders of frames `%05d.jpg`. is_cut: a file is what the question is about."""

    folder: str
    is_cut: bool = False
    fps: float | None = None


_STAR = (Layout("star/Charades_v1_480"), Layout("star/Charades_segment", is_cut=True))
_CLEVRER = (Layout("clevrer/video_validation"),)
_PERCEPTION = (Layout("perception/videos"),)

BOUNDED: frozenset[TaskName] = frozenset(
    {"Action Sequence", "Action Prediction", "Object Interaction", "Action Localization", "Episodic Reasoning"}
)
"""Tasks about a part of the video, from `start` to `end` seconds."""

LAYOUTS: dict[TaskName, tuple[Layout, ...]] = {
    "Action Sequence": _STAR,
    "Action Prediction": _STAR,
    "Action Antonym": (Layout("ssv2_video"), Layout("ssv2_video_mp4")),
    "Fine-grained Action": (Layout("Moments_in_Time_Raw/videos"),),
    "Unexpected Action": (Layout("FunQA_test/test"),),
    "Object Existence": _CLEVRER,
    "Object Interaction": _STAR,
    "Object Shuffle": _PERCEPTION,
    "Moving Direction": _CLEVRER,
    "Action Localization": (Layout("sta/sta_video"), Layout("sta/sta_video_segment", is_cut=True)),
    "Scene Transition": (Layout("scene_qa/video"),),
    "Action Count": _PERCEPTION,
    "Moving Count": _CLEVRER,
    "Moving Attribute": _CLEVRER,
    "State Change": _PERCEPTION,
    "Fine-grained Pose": (Layout("nturgbd"), Layout("nturgbd_convert")),
    "Character Order": _PERCEPTION,
    "Egocentric Navigation": (Layout("vlnqa"),),
    "Episodic Reasoning": (
        Layout("tvqa/frames_fps3_hq", fps=3),
        Layout("tvqa/video_fps3_hq_segment", is_cut=True),
    ),
    "Counterfactual Inference": _CLEVRER,
}
"""The official layout first."""


def file_of(task: TaskName) -> str:
    """`Fine-grained Action` -> `fine_grained_action.json`."""
    return task.lower().replace(" ", "_").replace("-", "_") + ".json"
