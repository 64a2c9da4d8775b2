"""Which option a written reply names. Rules in this order; the first that finds one decides, and none is guessed:

    1  yes/no options       the first word yes or no:                        "No, but yes in the end" -> no
    2  letter in brackets   the first one of an option:                      "(B) because", "I choose [b]"
    3  letter alone         the whole reply or line, or before . ) or :      "B", "b.", "B: the dog", "B) the dog"
    4  letter after a word  the first after option; choice or answer (is):   "option B", "The answer is B"
    5  the option's words   the whole reply:                                 "The dog."
    6  words contained      the only option whose words stand in the reply; one inside the words of another that stands there
                            does not count:                                  "it is the dog" and not "the dog or the cat"

Case, spacing, and punctuation at the ends do not matter. A reply that is empty, names two options by their words, or a letter
that no option has, names none: it is wrong, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

YES_NO = ["no", "yes"]


def named_option(reply: str, options: Sequence[str]) -> int | None:
    """Index of the option that the reply names, its letter being that of its place (A first); None: none of them."""
    texts = [_plain(option) for option in options]
    if sorted(texts) == YES_NO and (said := re.search(r"\b(yes|no)\b", reply.casefold())):
        return texts.index(said[1])
    by_letter = _by_letter(reply.strip().strip("*_`\"'"), len(options))
    return _by_words(_plain(reply), texts) if by_letter is None else by_letter


def _by_letter(reply: str, count: int) -> int | None:
    last = ord("A") + min(count, 26) - 1
    upper, either = f"[A-{chr(last)}]", f"[A-{chr(last)}a-{chr(last).lower()}]"
    patterns = (
        rf"(?<!\w)[(\[]\s*({either})\s*[)\]]",
        rf"^({either})[ \t]*(?:\n|$|[.):](?!\w))",
        rf"\b(?i:option)\s*:?\s*\**({either})\b",
        rf"\b(?i:choice|answer)(?i:\s+is)?\s*:?\s*\**({upper}\b|{either}\b(?!\s+\w))",  # "the answer is a dog"
    )
    for pattern in patterns:
        if found := re.search(pattern, reply):
            return ord(found[1].upper()) - ord("A")
    return None


def _by_words(reply: str, texts: Sequence[str]) -> int | None:
    if reply and texts.count(reply) == 1:
        return texts.index(reply)
    present = [text for text in texts if text and _contains(reply, text)]
    longest = [text for text in present if not any(text != other and _contains(other, text) for other in present)]
    return texts.index(longest[0]) if len(longest) == 1 else None


def _contains(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?*_`\"'")
