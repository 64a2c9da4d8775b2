"""Answers from the clues with the video in view."""

from __future__ import annotations

from cluenet.contracts import Reasoner
from cluenet.registry import register


@register.reasoner("clue_chain")
class ClueChainReasoner(Reasoner):
    """Sees the video, the question, the clue words and the options; how far it bypasses the clues is to be measured."""

    sees_video = True
    sees_clues = True
