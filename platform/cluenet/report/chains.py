"""Reasoning as text in which clues are links."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Piece:
    """Part of a chain. `key`: the clue that it says word by word, empty for other words."""

    text: str
    key: str = ""


def linked(chain: str, clues: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """The chain, cut where it says a clue word by word, whatever the case; the first of clues that say the same counts."""
    named: dict[str, str] = {}
    for clue in clues:
        named.setdefault(clue["text"].casefold(), clue["key"])
    named.pop("", None)
    if not named:
        return [Piece(chain)]
    words = "|".join(re.escape(text) for text in sorted(named, key=len, reverse=True))
    pieces = re.split(rf"(?<!\w)({words})(?!\w)", chain, flags=re.IGNORECASE)
    return [
        Piece(text, named.get(text.casefold(), "") if place % 2 else "") for place, text in enumerate(pieces) if text
    ]
