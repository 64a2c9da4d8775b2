"""Recorded utilities on disk, a row per question whose answer is known. Ray-free.

<run>/utilities/
    part-00000.parquet   SCHEMA; its account in the footer (key `cluenet`)
    manifest.json        address, weights, accounts; written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cluenet.errors import DataError
from cluenet.folders import read_manifest
from cluenet.model.pipeline import ClueNet
from cluenet.model.recorded import Recorded
from cluenet.prepared import atomic_file
from cluenet.records import Example, content_hash

CLUE = pa.struct(
    [
        ("slot", pa.int32()),
        ("ids", pa.list_(pa.int32())),  # of the words, in the backbone's vocabulary
        ("words", pa.list_(pa.string())),  # the same for people
        ("distractor", pa.bool_()),
        ("utility", pa.float32()),  # nats
    ]
)
SCHEMA = pa.schema(
    [
        ("set", pa.string()),  # address of the prepared set
        ("clip", pa.string()),
        ("number", pa.int32()),  # of the question among its clip's
        ("id", pa.string()),
        ("stem", pa.string()),  # `stem_key`
        ("clues", pa.list_(CLUE)),
    ]
)


@dataclass(frozen=True)
class Asked:
    """A question, and where it stands."""

    set: str
    clip: str
    number: int
    example: Example

    @property
    def stem_key(self) -> str:
        """Of what the clues are an answer to: the clip and the words of the question, without its options."""
        return content_hash(self.clip, self.example.question)


def rows_of(model: ClueNet, asked: Sequence[Sequence[Asked]], found: Recorded) -> Iterator[dict[str, Any]]:
    """asked: the questions of each clip of the batch that was measured."""
    decode = model.collator.vocabulary.decode
    ids, pool, added, utility = (
        value.tolist() for value in (found.ids_BQKW, found.pool_BQK, found.distractor_BQK, found.utility_BQK)
    )
    for b, clip in enumerate(asked):
        for q, one in enumerate(clip):
            clues = [
                {"slot": k, "ids": ids[b][q][k], "words": decode(ids[b][q][k]), "distractor": added[b][q][k],
                 "utility": utility[b][q][k]}
                for k, says in enumerate(pool[b][q]) if says
            ]  # fmt: skip
            yield {"set": one.set, "clip": one.clip, "number": one.number, "id": one.example.id, "stem": one.stem_key,
                   "clues": clues}  # fmt: skip


def write_part(path: Path, rows: Sequence[Mapping[str, Any]], account: Mapping[str, Any]) -> None:
    """Raises StorageError on a full disk."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    with atomic_file(path) as file:
        pq.write_table(table.replace_schema_metadata({"cluenet": json.dumps(account)}), file, compression="zstd")


class UtilityStore:
    """Looks recorded clues up for training batches. Raises StorageError for an unfinished folder, DataError for a damaged
    one."""

    def __init__(self, folder: Path, model: ClueNet):
        self.folder = folder
        self._shape = (model.slots, model.collator.words)
        self._none = model.collator.vocabulary.none
        manifest = read_manifest(folder)
        self._rows = {(row["set"], row["clip"], row["number"]): row for row in self._read(manifest["parts"])}
        if len(self._rows) != manifest["questions"]["recorded"]:
            raise DataError(
                f"{folder}: {len(self._rows)} questions, the manifest says {manifest['questions']['recorded']}. {_AGAIN}"
            )

    def _read(self, parts: Sequence[str]) -> Iterator[dict[str, Any]]:
        for name in parts:
            try:
                yield from pq.read_table(self.folder / name, schema=SCHEMA).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{self.folder / name}: missing or damaged: {error}. {_AGAIN}") from error

    def of(self, asked: Sequence[Sequence[Asked]], num_questions: int) -> Recorded:
        """[B, Q, K, ..] for the questions of each clip of a batch, Q being `num_questions`; a question without a known answer
        has no clues. Raises DataError for one that was not recorded, or asked otherwise then."""
        slots, words = self._shape
        shape = (len(asked), num_questions, slots)
        ids = torch.full((*shape, words), self._none)
        pool, added = torch.zeros(2, *shape, dtype=torch.bool)
        utility = torch.zeros(shape)
        for b, clip in enumerate(asked):
            for q, one in enumerate(clip):
                for clue in self._clues(one):
                    place = (b, q, clue["slot"])
                    ids[place], pool[place] = torch.tensor(clue["ids"]), True
                    added[place], utility[place] = clue["distractor"], clue["utility"]
        return Recorded(ids, pool, added, utility)

    def _clues(self, asked: Asked) -> list[dict[str, Any]]:
        if asked.example.answer is None:
            return []
        row = self._rows.get((asked.set, asked.clip, asked.number))
        if row is None or row["stem"] != asked.stem_key:
            raise DataError(f"{self.folder}: nothing recorded for question {asked.example.id!r} as it stands. {_AGAIN}")
        clues: list[dict[str, Any]] = row["clues"]
        return clues


_AGAIN = "Delete the folder and run the same command again: the utilities are recorded again."
