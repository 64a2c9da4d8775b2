"""`evaluate:` — scoring at the end."""

from __future__ import annotations

from typing import Literal

from cluenet.config.base import Section
from cluenet.steps import setting

Row = Literal["own", "oracle", "none", "text"]


class EvaluateSection(Section):
    questions_per_batch: int = setting(64, "evaluate", description="Questions of one forward pass; whole clips.", ge=1)
    rows: tuple[Row, ...] = setting(
        ("own", "oracle", "none", "text"),
        "evaluate",
        description="Whose clues are read: the model's own, ground truth, none, the displayed words alone.",
    )
    faithfulness: bool = setting(
        False,
        "evaluate",
        description="Change the clues and watch the answer: whether it rests on them. Many more answer passes, the video is "
        "still looked at once; measures row `oracle` too.",
    )
    bootstrap: int = setting(1000, "evaluate", description="Resamples (of videos) behind every interval.", ge=100)
    workers: int = setting(1, "none", description="Evaluation processes.", ge=1)
    threads: int = setting(1, "evaluate", description="Torch threads per process; fixed, so that bytes repeat.", ge=1)
