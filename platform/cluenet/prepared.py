"""A prepared dataset on disk: every clip's frames decoded once, every question, and exact accounts. Ray-free.

    <store>/prepared/<address>/
        clips/part-00012-1f9c0b....parquet   CLIP_SCHEMA: a row, and a row group of its own, per clip
        questions/part-00000.parquet         QUESTION_SCHEMA: a row per ready question, in the dataset's order
        index.parquet                        INDEX_SCHEMA: where each clip lies, sorted by key
        quarantine.jsonl                     a `Quarantined` per line, in the dataset's order
        manifest.json                        accounts, policy, versions; written last

A clip's row group can be read without its neighbours. What happened to each file of a part, the bad ones included, stands
as JSON in the part's own footer (key `cluenet`), so that a part is either there with its accounts or not there at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluenet import fingerprint, storage
from cluenet.decoding import decode_frames
from cluenet.errors import DataError
from cluenet.folders import atomic_write_bytes, read_manifest, storage_errors
from cluenet.recipe import Recipe
from cluenet.records import Example, Frames, Quarantined
from cluenet.registry import ComponentConfig

if TYPE_CHECKING:
    from cluenet.model.vision import EncodedClip

FORMAT = 2
QUESTIONS_PER_PART = 10_000
QUESTIONS_AT_ONCE = 1000
"""Made from their rows together, where all are gone through."""

CLIP_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("fps", pa.float64()),  # of a folder of frames
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64()),  # null: to the end of the file
        pa.field("duration_seconds", pa.float64(), nullable=False),
        pa.field("reader", pa.string(), nullable=False),  # which one delivered
        pa.field("frames", pa.binary(), nullable=False),  # cluenet.decoding.encode_frames
        pa.field("seconds", pa.list_(pa.float64()), nullable=False),
    ]
)
QUESTION_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("dataset", pa.string()),
        ("type", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer_index", pa.int64()),
        ("answer_text", pa.string()),
        ("video", pa.string()),
        ("clues", pa.string()),
        ("distractors", pa.string()),
        ("chain", pa.string()),
        ("meta", pa.string()),
        ("clip_key", pa.string()),
    ]
)
INDEX_SCHEMA = pa.schema([("key", pa.string()), ("part", pa.string()), ("row_group", pa.int64())])


def folder_of(recipe: Recipe, dataset: ComponentConfig) -> Path:
    """Where this entry of `data.train`, `data.validation` or `data.test` is, or will be, prepared.

    Raises DataError when the dataset's own files cannot be read.
    """
    return store_folder(recipe) / "prepared" / fingerprint.prepared(recipe, dataset, sources_of(recipe, dataset))


def sources_of(recipe: Recipe, dataset: ComponentConfig) -> list[str]:
    """What the questions and clues depend on besides the settings. Raises DataError."""
    return [*dataset.build().sources(), *recipe.data.clue_source.build().sources()]


def store_folder(recipe: Recipe) -> Path:
    """`store` on this machine as an absolute path: of a URI its mirror (`cluenet.storage`)."""
    return storage.local_folder(recipe.store, recipe.mirror)


# ----------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class PreparedClip:
    """One row of a clips part; see CLIP_SCHEMA."""

    key: str
    path: str
    fps: float | None
    sha256: str
    start_seconds: float
    end_seconds: float | None
    duration_seconds: float
    reader: str
    frames: bytes
    seconds: list[float]


class ClipWriter:
    """Writes one clips part: `write` each clip, then `close` with the part's account. The file appears with `close`."""

    def __init__(self, file: IO[bytes]):
        self._writer = pq.ParquetWriter(
            file,
            CLIP_SCHEMA,
            compression={name: "NONE" if name == "frames" else "SNAPPY" for name in CLIP_SCHEMA.names},
            use_dictionary=False,
            write_statistics=False,  # the smallest and largest value of `frames` would be the frames once more
        )

    def write(self, clip: PreparedClip) -> None:
        self._writer.write_table(pa.Table.from_pylist([asdict(clip)], schema=CLIP_SCHEMA))

    def close(self, account: Mapping[str, Any] | None = None) -> None:
        if account is not None:
            self._writer.add_key_value_metadata({"cluenet": json.dumps(account)})
        self._writer.close()

    def abandon(self) -> None:
        """Write no footer: the file is about to be removed."""
        self._writer.is_open = False


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write that becomes `path` when the block ends well. Raises StorageError: full disk, lost connection.

    It is locked while it is written, so that `remove_leftovers` can tell it from that of a process that was killed.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                _lock(file)
                yield file
                file.flush()
                os.fsync(file.fileno())
            storage.put(temporary, path)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_account(part: Path) -> dict[str, Any] | None:
    """The account in a clips part's footer; None when there is no such part or it is damaged. Raises StorageError."""
    try:
        account: dict[str, Any] = json.loads((storage.read(part, pq.read_metadata).metadata or {})[b"cluenet"])
        return account
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None


def write_questions(folder: Path, questions: Iterable[tuple[Example, str]]) -> int:
    """`questions/part-*.parquet` from ready examples with the key of their clip; returns how many."""
    rows = ({**example.to_row(), "clip_key": key} for example, key in questions)
    count = number = 0
    while chunk := list(islice(rows, QUESTIONS_PER_PART)):
        with atomic_file(folder / "questions" / f"part-{number:05d}.parquet") as file:
            pq.write_table(pa.Table.from_pylist(chunk, schema=QUESTION_SCHEMA), file, compression="zstd")
        count, number = count + len(chunk), number + 1
    _remove(part for part in storage.sizes(folder / "questions", "part-*") if part.name >= f"part-{number:05d}.parquet")
    return count


def write_quarantine(folder: Path, rows: Iterable[Quarantined]) -> None:
    text = "".join(json.dumps(row.to_row(), ensure_ascii=False) + "\n" for row in rows)
    atomic_write_bytes(folder / "quarantine.jsonl", text.encode())


def write_index(folder: Path, places: Mapping[str, tuple[str, int]]) -> None:
    """`index.parquet`. places: clip key -> (name of its part, row group)."""
    keys = sorted(places)
    parts, groups = ([places[key][column] for key in keys] for column in (0, 1))
    with atomic_file(folder / "index.parquet") as file:
        table = pa.table({"key": keys, "part": parts, "row_group": groups}, schema=INDEX_SCHEMA)
        pq.write_table(table, file, compression="zstd")


def remove_leftovers(folder: Path, parts: Set[str]) -> None:
    """Remove clips parts that are not among `parts`, and unfinished files that nobody is writing any more."""
    _remove(part for part in storage.sizes(folder / "clips", "part-*") if part.name not in parts)
    _remove(file for file in folder.rglob(".*.part") if not _is_locked(file))


def _lock(file: IO[bytes]) -> bool:
    """Until the file is closed or the process ends, however it ends. False: another one has it, or there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return not _lock(file)
    except FileNotFoundError:  # finished, or removed by another process
        return True


def _remove(files: Iterable[Path]) -> None:
    for file in list(files):
        storage.remove(file)


# ----------------------------------------------------------------------------------------------------- reading


def read_frames(folder: Path, part: str, row_group: int) -> Frames:
    """The frames at one place of the index. Raises DataError when the part is damaged, StorageError when it cannot be fetched."""
    path = storage.bring(folder / "clips" / part)
    with _damage(path), pq.ParquetFile(path) as file:
        return decode_frames(file.read_row_group(row_group, columns=["frames"])["frames"][0].as_py())


class PreparedSet:
    """Random access to a finished folder. Cheap to open, to pickle (it opens again) and safe in any thread.

    Raises StorageError when the folder is missing or unfinished, DataError when it is damaged or of another format.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()
        self.manifest = read_manifest(self.folder)
        if self.manifest.get("format") != FORMAT:
            found = self.manifest.get("format")
            raise DataError(
                f"{storage.shown(self.folder)}: prepared in format {found!r}, this version reads {FORMAT}. {_NEXT_STEP}"
            )
        self._index = _read_table(self.folder / "index.parquet").combine_chunks()
        self.clip_keys: list[str] = self._index["key"].to_pylist()

    def __reduce__(self) -> tuple[type[PreparedSet], tuple[Path]]:
        return type(self), (self.folder,)

    def __repr__(self) -> str:
        return f"PreparedSet({str(self.folder)!r}, {len(self)} clips, {self.num_questions} questions)"

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clip_keys)

    @property
    def num_questions(self) -> int:
        return int(self.manifest["rows"]["ready"])

    def frames(self, clip_key: str) -> Frames:
        """The sampled frames of a clip. Raises KeyError for an unknown key, DataError when the part is damaged."""
        place = self._index.slice(self.number_of(clip_key), 1)
        return read_frames(self.folder, place["part"][0].as_py(), place["row_group"][0].as_py())

    def clip(self, clip_key: str) -> Frames | EncodedClip:
        """What a model gets of a clip: `frames`, or what stands in for them (`cluenet.features.EncodedSet`)."""
        return self.frames(clip_key)

    def examples_of(self, clip_key: str, numbers: Sequence[int] | None = None) -> list[Example]:
        """The questions about a clip, in the dataset's order; or those with these numbers among them, which spares making the others.

        Raises KeyError for an unknown key, IndexError for a number beyond them.
        """
        rows, firsts = self._rows_by_clip
        number = self.number_of(clip_key)
        places = rows[firsts[number] : firsts[number + 1]]
        asked = self._questions.take(pa.array(places if numbers is None else places[list(numbers)]))
        return [Example.from_row(row) for row in asked.to_pylist()]

    def num_questions_of(self, clip_key: str) -> int:
        """How many `examples_of` a clip are, which are not made for it. Raises KeyError for an unknown key."""
        number, (_, firsts) = self.number_of(clip_key), self._rows_by_clip
        return int(firsts[number + 1] - firsts[number])

    def number_of(self, clip_key: str) -> int:
        """Its place among `clip_keys`, which are sorted. Raises KeyError for an unknown key."""
        number = bisect_left(self.clip_keys, clip_key)
        if self.clip_keys[number : number + 1] != [clip_key]:
            raise KeyError(clip_key)
        return number

    def examples(self) -> list[Example]:
        """All questions, in the dataset's order."""
        return list(self.iter_examples())

    def iter_examples(self) -> Iterator[Example]:
        """The same one after the other, for sets that are larger than memory has room for as objects."""
        for batch in self._questions.to_batches(max_chunksize=QUESTIONS_AT_ONCE):
            yield from map(Example.from_row, batch.to_pylist())

    def known_answers(self) -> Iterator[tuple[str, str, int | None]]:
        """(question type, right answer in words, its place among the options, None without options), of every question
        whose answer is known."""
        names = ["type", "options", "answer_index", "answer_text"]
        for batch in self._questions.select(names).to_batches(max_chunksize=QUESTIONS_AT_ONCE):
            for kind, options, place, words in zip(*(batch[name].to_pylist() for name in names)):
                if place is not None:
                    yield kind, options[place], place
                elif words is not None:
                    yield kind, words, None

    @cached_property
    def _questions(self) -> pa.Table:
        folder = self.folder / "questions"
        table = _read_table(folder)
        if table.num_rows != self.num_questions:
            raise DataError(
                f"{storage.shown(folder)}: {table.num_rows} rows, the manifest says {self.num_questions} questions. {_NEXT_STEP}"
            )
        return table.combine_chunks()

    @cached_property
    def _rows_by_clip(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the questions, sorted by clip, and where those of each clip begin, with the end of the last: 8 bytes each in
        every process, where a dictionary has hundreds."""
        keys = self._index["key"].combine_chunks()
        clips = pc.index_in(self._questions["clip_key"], value_set=keys).to_numpy()
        rows = np.argsort(clips, kind="stable")
        return rows, np.searchsorted(clips, np.arange(len(self) + 1), sorter=rows)


_NEXT_STEP = "Delete the folder and prepare it again."


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{storage.shown(path)}: missing or damaged: {error}. {_NEXT_STEP}") from error


def _read_table(path: Path) -> pa.Table:
    """A Parquet file, or the parts of a folder in the order of their names."""
    with _damage(path):
        files = [path] if path.suffix == ".parquet" else storage.sizes(path, "part-*.parquet")
        return pa.concat_tables([pq.read_table(storage.bring(file), partitioning=None) for file in files])
