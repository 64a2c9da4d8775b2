"""Prepared clips -> collated micro-batches, made in a background thread while the model computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TypeAlias, TypeVar

from cluenet.config.train import Stage
from cluenet.model.batch import Batch
from cluenet.model.pipeline import ClueNet
from cluenet.model.vision import EncodedClip
from cluenet.prepared import PreparedSet
from cluenet.records import Example, Frames
from cluenet.train.group import Group
from cluenet.train.plan import Draw, Plan, place_of, seed_of
from cluenet.train.utility_store import Asked, UtilityStore

T = TypeVar("T")
Clip: TypeAlias = tuple[Frames | EncodedClip, list[Example]]
Ready: TypeAlias = tuple[T | None, BaseException | None, bool]  # item, or error; whether there may be more


class TrainingBatches:
    """The micro-batches of one worker, step after step."""

    def __init__(
        self, model: ClueNet, sets: Sequence[PreparedSet], weights: Sequence[float], stage: Stage, group: Group, *, name: str,
        seed: int, parts: int | None = None, recorded: UtilityStore | None = None,
    ):  # fmt: skip
        """`parts`: micro-batches of a step of this worker; None: `accumulate`. `recorded`: utilities of the sets' questions, to
        go with each batch."""
        self.model, self.sets, self.stage, self.group = model, sets, stage, group
        self.name, self.seed, self.recorded = name, seed, recorded
        self.parts = parts or stage.accumulate
        order = seed_of(seed, name, "order")  # the stages draw in different orders
        sizes = tuple(map(len, sets))
        self.plan = Plan(sizes, tuple(weights), order, stage.clips_per_batch, stage.questions_per_clip)

    def __call__(self, first_step: int, end_step: int) -> Iterator[list[Batch]]:
        """For each step, this worker's micro-batches."""
        for step in range(first_step, end_step):
            parts = self.plan.slice(step, rank=self.group.rank, world_size=self.group.size, accumulate=self.parts)
            yield [self._batch(draws, step, part) for part, draws in enumerate(parts)]

    def _batch(self, draws: Sequence[Draw], step: int, part: int) -> Batch:
        place = place_of(part, rank=self.group.rank, parts=self.parts, accumulate=self.stage.accumulate)
        seed = seed_of(self.seed, self.name, step, *place)
        asked = [self._asked(draw) for draw in draws]
        clips = [self._clip(draw, questions) for draw, questions in zip(draws, asked)]
        batch = self.model.collate(clips, seed=seed, shuffle_options=True, chain=self.stage.losses.chain > 0)
        if self.recorded is not None:
            batch.recorded = self.recorded.of(asked, batch.valid_BQ.shape[1])
        return batch

    def _asked(self, draw: Draw) -> list[Asked]:
        prepared = self.sets[draw.dataset]
        key = prepared.clip_keys[draw.clip]
        numbers = self.plan.questions(draw, prepared.num_questions_of(key))
        examples = prepared.examples_of(key, numbers)
        return [Asked(prepared.folder.name, key, number, example) for number, example in zip(numbers, examples)]

    def _clip(self, draw: Draw, asked: Sequence[Asked]) -> Clip:
        prepared = self.sets[draw.dataset]
        return prepared.clip(prepared.clip_keys[draw.clip]), [one.example for one in asked]


def prefetch(items: Iterator[T], *, size: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, up to `size` of them made ahead in a thread. Its errors are raised here."""
    ready: queue.Queue[Ready[T]] = queue.Queue(size)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, ready, stop), daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            item, error, more = ready.get()
            if error is not None:
                raise error
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for a place in the queue
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue


def _fill(items: Iterator[T], ready: queue.Queue[Ready[T]], stop: threading.Event) -> None:
    try:
        for item in items:
            if stop.is_set():
                return
            ready.put((item, None, True))
        ready.put((None, None, False))
    except BaseException as error:
        ready.put((None, error, False))
