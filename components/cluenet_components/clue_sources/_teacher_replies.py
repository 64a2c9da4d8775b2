"""What a teacher replies: read strictly, or refused with the reason. Nothing is guessed or repaired."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import Field, ValidationError

from cluenet.records import Clue
from cluenet_components._labels import Labels, problems

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_TOKENS = 8
"""Longest reply where one letter is asked for."""
ROUNDING_SECONDS = 0.5
"""So far beyond the clip's end a time may lie, as when 3.97 s are rounded to 4; it is then cut to the end."""
FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
"""A reply that is one code block, as chat models like to write JSON."""
LETTER = re.compile(r"\(?([A-Z])\)?\.?")


class BadReply(Exception):  # noqa: N818  (the teacher's mistake, not the program's)
    """A reply that cannot be used; the message tells the teacher why."""


@dataclass(frozen=True)
class Reply:
    """`letters`: log-probability of each option letter that was told, where the reply's letter stands; None: not told."""

    text: str
    letters: Mapping[str, float] | None = None


class Proposal(Labels):
    """Clues on the clip's clock, with times, and a chain."""

    clues: tuple[Clue, ...] = Field(min_length=1)
    chain: str = Field(min_length=1)


def read_proposal(text: str, *, duration_seconds: float, max_clues: int) -> Proposal:
    """Raises BadReply, with every problem, unless the text is one JSON object of the form that the prompt asks for."""
    text = text.strip()
    fenced = FENCED.fullmatch(text)
    try:
        proposal = Proposal.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        raise BadReply("; ".join(problems(error, Proposal))) from None
    if found := _beyond_form(proposal, duration_seconds, max_clues):
        raise BadReply("; ".join(found))
    return proposal.model_copy(update={"clues": tuple(_within(clue, duration_seconds) for clue in proposal.clues)})


def _beyond_form(proposal: Proposal, duration_seconds: float, max_clues: int) -> list[str]:
    found = ["distractors: not asked for"] if proposal.distractors else []
    if len(proposal.clues) > max_clues:
        found.append(f"clues: {len(proposal.clues)} of them, at most {max_clues} are asked for")
    for number, clue in enumerate(proposal.clues):
        if clue.boxes:
            found.append(f"clues.{number}.boxes: not asked for")
        if clue.end_seconds is None:
            found.append(f"clues.{number}: start_seconds and end_seconds are required")
        elif clue.end_seconds > duration_seconds + ROUNDING_SECONDS:
            found.append(
                f"clues.{number}.end_seconds: {clue.end_seconds:g}, but the clip ends at {duration_seconds:.2f}"
            )
    return found


def _within(clue: Clue, duration_seconds: float) -> Clue:
    start, end = (min(time or 0.0, duration_seconds) for time in (clue.start_seconds, clue.end_seconds))
    return replace(clue, start_seconds=start, end_seconds=end)


@dataclass(frozen=True)
class Choice:
    """An answer to a question with options. `probabilities`: of each option, None where the teacher only named one."""

    option: int
    probabilities: tuple[float, ...] | None = None


def read_choice(reply: Reply, num_options: int) -> Choice:
    """From the letters' log-probabilities, normalised over the options, else from a reply that is a letter alone.

    An option whose letter was not told (endpoints list the likeliest tokens only) has probability 0. Raises BadReply.
    """
    told = {letter: value for letter, value in (reply.letters or {}).items() if letter in LETTERS[:num_options]}
    if told:
        weights = [math.exp(told[letter]) if letter in told else 0.0 for letter in LETTERS[:num_options]]
        if total := sum(weights):
            return Choice(weights.index(max(weights)), tuple(weight / total for weight in weights))
    found = LETTER.fullmatch(reply.text.strip())
    if found is None or found[1] not in LETTERS[:num_options]:
        raise BadReply(f"not one letter from A to {LETTERS[num_options - 1]}")
    return Choice(LETTERS.index(found[1]))


def raises_answer(informed: Choice, blind: Choice, answer: int) -> bool:
    """Whether the clues make the right answer likelier; without probabilities: whether they turn a wrong choice right."""
    if informed.probabilities is not None and blind.probabilities is not None:
        return informed.probabilities[answer] > blind.probabilities[answer]
    return informed.option == answer != blind.option
