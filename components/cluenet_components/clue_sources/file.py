"""Clues from a JSON Lines file of one's own: written by hand, by a script or by a teacher model.

One object per line, keyed by question id; `<dataset>/<id>` where two datasets share an id. The other fields are those of
`cluenet_components._labels`, `clues` is required:

    {"id": "5550001112_4", "clues": [{"text": "the girl kneels", "start_seconds": 3.5, "end_seconds": 9.0}],
     "distractors": [], "chain": "The girl kneels to reach her shoe, so she ties it."}
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError

from cluenet.contracts import ClueSource
from cluenet.errors import DataError
from cluenet.records import Clue, Example
from cluenet.registry import ComponentConfig, register
from cluenet_components._files import existing_file, source_of, text_lines
from cluenet_components._labels import Labels, problems

PROBLEMS_SHOWN = 20


class LabelledQuestion(Labels):
    """One line of the file."""

    id: str = Field(min_length=1)
    clues: tuple[Clue, ...] | None  # required: a forgotten key must not read as "not labelled"


@register.clue_source("file")
class FileClues(ClueSource):
    """Clues, distractors and chains from a JSON Lines file; what the dataset brings is replaced, not mixed in.

    An example the file does not name gets `clues=None` and counts as unlabelled. An id the file names and no example
    has is counted by `summary`.
    """

    class Config(ComponentConfig):
        path: str = Field(..., min_length=1, description="JSON Lines file of clues, keyed by question id.")

    config: Config

    def __init__(self, config: Config):
        super().__init__(config)
        self._used: set[str] = set()

    def attach(self, example: Example) -> Example:
        """The example with the file's labels. Raises DataError listing every problem of the file, with its line."""
        for key in (f"{example.dataset}/{example.id}", example.id):
            if key in self._entries:
                self._used.add(key)
                entry = self._entries[key]
                return example.with_clues(entry.clues, entry.chain, entry.distractors)
        return example.with_clues(None, None)

    def sources(self) -> list[str]:
        return [source_of(self._file)]

    def unused_ids(self) -> list[str]:
        """Ids of the file that no example attached so far (in this process) has, in the order of the file."""
        return [key for key in self._entries if key not in self._used]

    def summary(self) -> dict[str, int]:
        """Entries of the file, and how many of them some example attached so far has or has not."""
        entries, used = len(self._entries), len(self._used)
        return {"entries": entries, "used": used, "unused": entries - used}

    @cached_property
    def _file(self) -> Path:
        return existing_file(self.config.path, "file.path")

    @cached_property
    def _entries(self) -> dict[str, LabelledQuestion]:
        entries: dict[str, LabelledQuestion] = {}
        lines: dict[str, int] = {}
        found: list[str] = []
        for number, line in text_lines(self._file):
            try:
                entry = LabelledQuestion.model_validate_json(line)
            except ValidationError as error:
                found += [f"{self._file}:{number}: {problem}" for problem in problems(error, LabelledQuestion)]
                continue
            if entry.id in lines:
                found.append(
                    f"{self._file}:{number}: id: {entry.id!r} stands on line {lines[entry.id]} already; keep one"
                )
            entries[entry.id] = entry
            lines.setdefault(entry.id, number)
        if found:
            raise DataError("\n".join(_shown(self._file, found)))
        if not entries:
            raise DataError(f'{self._file}: empty: no clues. Write one {{"id": ..., "clues": [...]}} per line.')
        return entries


def _shown(file: Path, found: list[str]) -> Iterator[str]:
    yield f"{file}: {len(found)} problem{'s' if len(found) > 1 else ''}; correct these lines:"
    yield from (f"  {problem}" for problem in found[:PROBLEMS_SHOWN])
    if len(found) > PROBLEMS_SHOWN:
        yield f"  and {len(found) - PROBLEMS_SHOWN} more"
