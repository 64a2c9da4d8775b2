"""The step `utilities`: the frozen model that stage 1 handed on scores its own clues of all training questions, with Ray Data.

    <run>/utilities/   see `train.utility_store`

Parts are a pure function of the prepared sets and the recipe, whoever makes them; one that is there is not made again.
"""

from __future__ import annotations

import json
import logging
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cluenet.errors import CheckpointError, CluenetError, StorageError
from cluenet.folders import finished, read_manifest, write_manifest
from cluenet.model.build import build_model
from cluenet.model.pipeline import ClueNet
from cluenet.model.recorded import measure
from cluenet.prepared import PreparedSet, read_account
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.records import Frames
from cluenet.train import checkpoints
from cluenet.train.plan import seed_of
from cluenet.train.sharing import STAGE1, brings_filter
from cluenet.train.utility_store import Asked, rows_of, write_part

BATCHES_PER_PART = 8
MOST_BLOCKS = 1000
Account: TypeAlias = dict[str, Any]
COUNTS = ("questions", "recorded", "without_answer", "stated", "useful", "distractors")


@dataclass(frozen=True)
class UtilityJob:
    """All that a worker needs, as plain values. Paths are absolute."""

    recipe: dict[str, Any]  # Recipe.to_dict()
    folder: str
    base: str  # backbone in Hugging Face layout
    weights: str | None  # of the frozen model; None: the base's
    address: str


@dataclass(frozen=True)
class Part:
    """Whole clips of one prepared set, in batches: a file of the folder."""

    name: str
    set: str  # folder of the prepared set
    batches: tuple[tuple[str, ...], ...]  # clip keys


def record_utilities(
    recipe: Recipe, *, run: Path, base: Path, train: Sequence[Path], checkpoint: Path | None, address: str,
    progress: type[Progress] = Progress, local: bool = False,
) -> Path:  # fmt: skip
    """Write `<run>/utilities/` and return it; at once when it is finished, from what is there when it was interrupted.

    train: prepared training sets. checkpoint: what stage 1 returned. address: by `cluenet.fingerprint.utilities`.
    local: in this process, without Ray. Raises CheckpointError, DataError, StorageError.
    """
    folder = run.absolute() / "utilities"
    if finished(folder):
        if (made := read_manifest(folder).get("address")) != address:
            raise CheckpointError(f"{folder}: utilities of another recipe (address {made}, now {address}). Delete it.")
        return folder
    weights = None if checkpoint is None else str(checkpoint.absolute() / checkpoints.WEIGHTS)
    job = UtilityJob(recipe.to_dict(), str(folder), str(base.absolute()), weights, address)
    sets = [PreparedSet(path) for path in dict.fromkeys(path.absolute() for path in train)]
    work, started, accounts = list(parts_of(sets, _questions_per_batch(recipe))), time.monotonic(), []
    with progress("Recording utilities", total=sum(one.num_questions for one in sets), unit="questions") as display:
        for account in _local(job, work) if local else _with_ray(job, work, recipe):
            accounts.append(account)
            display.advance(account["questions"])
    _check(folder, sets, work, accounts)
    manifest = _manifest(recipe, job, work, accounts)
    write_manifest(folder, {**manifest, "run": {"seconds": round(time.monotonic() - started, 2)}})
    return folder


def _questions_per_batch(recipe: Recipe) -> int:
    """As many as stage 2 trains at once on one worker, whatever their number."""
    stage = recipe.train.stage2
    return max(1, stage.clips_per_batch // stage.accumulate * stage.questions_per_clip)


def parts_of(sets: Sequence[PreparedSet], most_questions: int) -> Iterator[Part]:
    """Clips stay whole, since their questions share the visual pass and lend each other distractors."""
    number = 0
    for prepared in sets:
        batches = list(_batches_of(prepared, most_questions))
        for first in range(0, len(batches), BATCHES_PER_PART):
            chosen = tuple(map(tuple, batches[first : first + BATCHES_PER_PART]))
            yield Part(f"part-{number:05d}.parquet", str(prepared.folder), chosen)
            number += 1


def _batches_of(prepared: PreparedSet, most_questions: int) -> Iterator[list[str]]:
    """Clip keys; a batch has at most `most_questions` questions, or a single clip with more."""
    batch: list[str] = []
    room = most_questions
    for key in prepared.clip_keys:
        count = len(prepared.examples_of(key))
        if batch and count > room:
            yield batch
            batch, room = [], most_questions
        batch.append(key)
        room -= count
    if batch:
        yield batch


def _check(folder: Path, sets: Sequence[PreparedSet], work: Sequence[Part], accounts: Sequence[Account]) -> None:
    """Every question is recorded, or known to have no answer. Raises StorageError where parts went elsewhere."""
    lost = [part.name for part in work if not (folder / part.name).is_file()]
    counts = {name: sum(account[name] for account in accounts) for name in COUNTS}
    wanted = sum(one.num_questions for one in sets)
    if lost or counts["questions"] != wanted or counts["recorded"] + counts["without_answer"] != wanted:
        raise StorageError(
            f"{folder}: {wanted} questions, {counts['recorded']} recorded and {counts['without_answer']} without a known "
            f"answer; {len(lost)} of {len(work)} parts cannot be seen from here. Set `runs=` to a folder that all machines "
            "of the cluster share, delete this one and run the same command again."
        )


def _manifest(recipe: Recipe, job: UtilityJob, work: Sequence[Part], accounts: Sequence[Account]) -> dict[str, Any]:
    """But for `run` it depends on the recipe and the data alone."""
    counts = {name: sum(account[name] for account in accounts) for name in COUNTS}
    settings = recipe.train.stage2.filter_loss
    return {
        "step": "utilities", "address": job.address, "weights": job.weights,
        "settings": {"utility": settings.utility, "distractors": settings.distractors, "delta": settings.delta},
        "questions": {"all": counts["questions"], **{name: counts[name] for name in ("recorded", "without_answer")}},
        "clues": {name: counts[name] for name in ("stated", "useful", "distractors")},
        "parts": [part.name for part in work],
        "versions": {name: version(name) for name in ("cluenet", "torch", "transformers")},
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------- on a worker


class PartRecorder:
    """Makes parts; the model is loaded with the first one that is not there yet."""

    def __init__(self, job: UtilityJob):
        self._job, self._recipe = job, Recipe.from_dict(job.recipe)  # loads the plug-ins
        resources = self._recipe.train.resources
        self._device = "cuda" if resources.gpu else "cpu"
        torch.set_num_threads(max(1, int(resources.cpu)))

    @cached_property
    def model(self) -> ClueNet:
        model = build_model(self._recipe.model, self._job.base, seed=self._recipe.seed)
        if self._job.weights is not None:
            with_filter = brings_filter(self._recipe, STAGE1)
            checkpoints.load_weights(model, Path(self._job.weights), with_filter=with_filter)
        return model.to(self._device)

    def account(self, part: Part) -> Account:
        """The account of the part, which is made unless it is there. Raises StorageError, DataError, CheckpointError."""
        path = Path(self._job.folder) / part.name
        known = read_account(path)
        if known is not None and known["address"] == self._job.address:
            return known
        prepared, rows = PreparedSet(part.set), []
        account: Account = {"address": self._job.address, **dict.fromkeys(COUNTS, 0)}
        for keys in part.batches:
            asked = [self._asked(prepared, key) for key in keys]
            account["questions"] += sum(len(prepared.examples_of(key)) for key in keys)
            rows += self._rows(prepared, [clip for clip in asked if clip])
        self._count(account, rows)
        write_part(path, rows, account)
        return account

    def _asked(self, prepared: PreparedSet, key: str) -> list[Asked]:
        """Questions with a known answer."""
        return [
            Asked(prepared.folder.name, key, number, example)
            for number, example in enumerate(prepared.examples_of(key))
            if example.answer is not None
        ]

    def _rows(self, prepared: PreparedSet, asked: Sequence[Sequence[Asked]]) -> list[dict[str, Any]]:
        if not asked:
            return []
        clips: list[tuple[Frames, list[Any]]] = [
            (prepared.frames(clip[0].clip), [one.example for one in clip]) for clip in asked
        ]
        batch = self.model.collate(clips, seed=0, shuffle_options=False).to(self._device)
        seed = seed_of(self._recipe.seed, "utilities", prepared.folder.name, asked[0][0].clip)
        found = measure(self.model, batch, self._recipe.train.stage2.filter_loss, seed=seed)
        return list(rows_of(self.model, asked, found))

    def _count(self, account: Account, rows: Sequence[dict[str, Any]]) -> None:
        clues = [clue for row in rows for clue in row["clues"]]
        stated = [clue["utility"] for clue in clues if not clue["distractor"]]
        delta = self._recipe.train.stage2.filter_loss.delta
        account |= {
            "recorded": len(rows), "without_answer": account["questions"] - len(rows), "stated": len(stated),
            "useful": sum(value > delta for value in stated), "distractors": len(clues) - len(stated),
        }  # fmt: skip


def _local(job: UtilityJob, work: Sequence[Part]) -> Iterator[Account]:
    return map(PartRecorder(job).account, work)


# -------------------------------------------------------------------------------------------------------- Ray Data


def _with_ray(job: UtilityJob, work: Sequence[Part], recipe: Recipe) -> Iterator[Account]:
    """Accounts in the order in which parts are done. Raises what stopped a worker."""
    import ray.data

    items, resources = [{"part": json.dumps(asdict(part))} for part in work], recipe.train.resources
    with _quiet():
        accounts = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map(
            _Worker,
            fn_constructor_kwargs={"job": asdict(job)},
            num_cpus=resources.cpu,
            num_gpus=resources.gpu,
            compute=ray.data.ActorPoolStrategy(size=min(recipe.train.workers, len(items))),
        )
        for row in accounts.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["account"])


class _Worker:
    """A user's error comes back as a value: raised here, Ray would retry it, log it at length and wrap it."""

    def __init__(self, job: dict[str, Any]):
        self._job = UtilityJob(**job)
        self._recorder: PartRecorder | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._recorder is None:
                self._recorder = PartRecorder(self._job)
            return {"account": json.dumps(self._recorder.account(Part(**json.loads(row["part"])))), "error": b""}
        except CluenetError as error:
            return {"account": "", "error": pickle.dumps(error)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without its own bars and reports, which would fight with ours; `cluenet` at level DEBUG keeps them."""
    import ray.data

    if logging.getLogger("cluenet").isEnabledFor(logging.DEBUG):
        yield
        return
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)
