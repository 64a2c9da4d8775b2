"""The end-to-end baseline: no clues."""

from __future__ import annotations

from cluenet.contracts import Reasoner
from cluenet.registry import register


@register.reasoner("direct")
class DirectReasoner(Reasoner):
    """Sees the video, the question and the options: ordinary fine-tuning on answers, the baseline to beat."""

    sees_video = True
    sees_clues = False
