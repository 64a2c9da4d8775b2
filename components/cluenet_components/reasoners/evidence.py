"""Answers from the displayed clue words alone."""

from __future__ import annotations

from cluenet.contracts import Reasoner
from cluenet.registry import register


@register.reasoner("evidence")
class EvidenceReasoner(Reasoner):
    """Sees the question, the clue words and the options, and no video: the answer can rest on nothing else."""

    sees_video = False
    sees_clues = True
