"""Clues that come with the dataset."""

from __future__ import annotations

from cluenet.contracts import ClueSource
from cluenet.records import Example
from cluenet.registry import register


@register.clue_source("annotated")
class AnnotatedClues(ClueSource):
    """Keeps the clues, distractors and chain a dataset brings; an unlabelled example stays unlabelled (`clues=None`)."""

    def attach(self, example: Example) -> Example:
        return example
