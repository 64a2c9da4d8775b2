"""Lettered options inside a question's text, and the option an answer means.

Written as instruction data writes them: `(A) text`, `A. text`, `A) text` or `A: text`, one per line or in one line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from cluenet_components.datasets._rows import BadRowError

LETTERS = ascii_uppercase
_STYLES = (r"\(([A-Z])\)[ \t]*", *(rf"([A-Z]){sign}(?:[ \t]+|(?=\n)|$)" for sign in (r"\.", r"\)", ":")))
_MARKERS = tuple(re.compile(rf"(?<!\S){style}") for style in _STYLES)
_HEADER = re.compile(r"(?:^|\s)(?:options|choices|candidates|possible answers)\s*:\s*$", re.IGNORECASE)
_LETTERED = re.compile(
    r"(?:(?i:(?:the\s+)?(?:(?:correct|best|right)\s+)?(?:answer|option|choice)(?:\s+is)?)\s*:?\s*)?"
    r"(?:\(([A-Za-z])\)|([A-Za-z])(?=[.):](?:\s|$)|\n|$))[.):]?\s*((?s:.*))"
)


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without its options, and the options without their letters; () where it holds fewer than two.

    Letters must run A, B, C, ...; the last such run counts, so that an "(A)" inside the question does no harm, and
    markers that start a line count before markers inside one. An option may go on over several lines, except the
    last one, which ends with its line: what follows (often an instruction) stays in the text. An option that is a
    letter alone comes back as "", for the caller to refuse.
    """
    run = _find_run(text)
    if not run:
        return text.strip(), ()
    line_end = text.find("\n", run[-1].end())
    ends = [*(marker.start() for marker in run[1:]), len(text) if line_end < 0 else line_end]
    options = tuple(" ".join(text[marker.end() : end].split()) for marker, end in zip(run, ends, strict=True))
    before, after = _HEADER.sub("", text[: run[0].start()]).strip(), text[ends[-1] :].strip()
    return "\n".join(part for part in (before, after) if part), options


def _find_run(text: str) -> list[re.Match[str]]:
    """The markers of the longest run, those at line starts preferred."""
    found = [list(pattern.finditer(text)) for pattern in _MARKERS]
    at_line_starts = [[m for m in markers if not text[: m.start()].rpartition("\n")[2].strip()] for markers in found]
    return max(map(_last_run, at_line_starts), key=len) or max(map(_last_run, found), key=len)


def _last_run(markers: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The last A, B, C, ... of at least two; letters out of turn belong to an option's text."""
    for start in reversed([index for index, marker in enumerate(markers) if marker[1] == "A"]):
        run: list[re.Match[str]] = []
        for marker in markers[start:]:
            if marker[1] == LETTERS[len(run) : len(run) + 1]:
                run.append(marker)
        if len(run) > 1:
            return run
    return []


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """`["A. yes", "B. no"]` -> `("yes", "no")` if all are lettered in order; otherwise only spaces are tidied."""
    stem, found = split_options("\n".join(options))
    return found if not stem and len(found) == len(options) else tuple(" ".join(option.split()) for option in options)


def answer_index(answer: object, options: Sequence[str]) -> int:
    """Which option is meant: by index (0-based number), by letter ("B", "(B)", "B. text", "Answer: B") or by its text.

    Raises ValueError stating the value and what is allowed when no option, or more than one, is meant.
    """
    found: set[int] = set()
    if isinstance(answer, str):
        found = _meant(answer, options)
    elif isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        found = {answer}
    if len(found) == 1:
        return found.pop()
    lettered = "; ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    meant = " or ".join(repr(options[index]) for index in sorted(found))
    wrong = f"can mean {meant}" if found else "is none of the options"
    raise ValueError(
        f"answer {answer!r:.200} {wrong}. Allowed: an index 0..{len(options) - 1}, a letter, or a text of {lettered}"
    )


def index_of_text(answer: str, options: Sequence[str]) -> int:
    """The one option that reads exactly like the answer, for sets that store the answer as text.

    Raises BadRowError: answer_outside_options where there is none, ambiguous_answer where there are several.
    """
    found = [index for index, option in enumerate(options) if option == answer]
    if not found:
        raise BadRowError("answer_outside_options", f"answer {answer!r:.200} is none of the options {list(options)}")
    if len(found) > 1:
        raise BadRowError("ambiguous_answer", f"answer {answer!r:.200} is options {found} alike")
    return found[0]


def _meant(answer: str, options: Sequence[str]) -> set[int]:
    found = _same_text(answer, options)
    lettered = _LETTERED.fullmatch(answer.strip())
    if lettered:
        index = LETTERS.index((lettered[1] or lettered[2]).upper())
        if index < len(options):
            # "B. cat" where cat is option A contradicts itself, and both must show
            found |= {index} | _same_text(lettered[3], options)
    return found


def _same_text(text: str, options: Sequence[str]) -> set[int]:
    wanted = _plain(text)
    return {index for index, option in enumerate(options) if wanted and _plain(option) == wanted}


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()
