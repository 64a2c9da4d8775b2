"""What a teacher is asked, from text files with `$name` places (`string.Template`; `$$` is a dollar sign)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from cluenet.errors import DataError, suggestion
from cluenet.records import Clue, Example
from cluenet_components._files import existing_file, read_text

if TYPE_CHECKING:
    from cluenet_components.clue_sources._teacher_replies import BadReply

FOLDER = Path(__file__).parent / "prompts"
PLACES = ("duration", "max_clues", "options", "question")
"""What a prompt of one's own may fill in. The right answer is not among them: clues that repeat it would teach nothing."""


class Prompts:
    """`file`: a prompt of one's own in place of `teacher_clues.txt`. Raises DataError when it cannot be used."""

    def __init__(self, file: str | None):
        self._clues = _own(file) if file else _shipped("teacher_clues")
        self._answer, self._again = _shipped("teacher_answer"), _shipped("teacher_again")

    def sources(self) -> list[str]:
        """The texts themselves, for the prepared set's address."""
        return [text.template for text in (self._clues, self._answer, self._again)]

    def clues(self, example: Example, *, duration_seconds: float, max_clues: int) -> str:
        return self._clues.substitute(
            question=example.question,
            options=_options(example),
            duration=f"{duration_seconds:.2f}",
            max_clues=max_clues,
        )

    def answer(self, example: Example, clues: Sequence[Clue]) -> str:
        """The question as text alone, with what `clues` say or with nothing."""
        facts = "Nothing is known about the clip."
        if clues:
            facts = "\n".join(["What is known about the clip:", *map(_fact, clues)])
        return self._answer.substitute(facts=facts, question=example.question, options=_options(example))

    def again(self, prompt: str, reply: str, problem: BadReply) -> str:
        return self._again.substitute(prompt=prompt, reply=reply, problem=problem)


def _shipped(name: str) -> Template:
    return Template(read_text(FOLDER / f"{name}.txt").strip())


def _own(path: str) -> Template:
    file = existing_file(path, "data.clue_source.prompt")
    template = Template(read_text(file).strip())
    if not template.is_valid():
        raise DataError(f"data.clue_source.prompt: {file}: a $ that names no place. Write $$ for a dollar sign.")
    names = template.get_identifiers()
    if unknown := sorted(set(names) - set(PLACES)):
        raise DataError(
            f"data.clue_source.prompt: {file}: unknown place ${unknown[0]}. {suggestion(unknown[0], PLACES)}"
        )
    if "question" not in names:
        raise DataError(
            f"data.clue_source.prompt: {file}: has no $question, so every clip would be asked the same. Add it."
        )
    return template


def _options(example: Example) -> str:
    return "\n".join(f"({chr(ord('A') + index)}) {text}" for index, text in enumerate(example.options))


def _fact(clue: Clue) -> str:
    return f"- from {clue.start_seconds:.2f} to {clue.end_seconds:.2f} s: {clue.text}"
