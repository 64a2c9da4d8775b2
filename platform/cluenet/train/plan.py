"""Which clips and questions each optimiser step sees: a pure function of the seed and the step, the same on any number of
workers. Nothing is replayed to find step 10,000, which is what makes a resumed run see exactly what it would have seen.

Several datasets are mixed in rounds. In round b, dataset s is drawn round((b + 1) r_s) - round(b r_s) times, where
r_s = weight_s x clips_s and the largest weight counts as 1: over many rounds the datasets are drawn in proportion to
weight x clips, whatever the rounding of one round. The order within a round is shuffled. The draws of one dataset walk
through permutations of its clips, so that every clip is seen before any is seen again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from cluenet.records import content_hash


@dataclass(frozen=True)
class Draw:
    """One clip of a batch: clip number `clip` (in the order of its dataset's keys) of dataset number `dataset`."""

    dataset: int
    clip: int
    visit: int  # how many times all clips of the dataset were seen before; chooses the questions


@dataclass(frozen=True)
class Plan:
    """The order of training clips and questions of one stage.

    num_clips: clips of each dataset. weights: of each dataset, > 0. clips_per_batch: clips of one optimiser step over all
    workers. Raises ValueError when there is no clip to draw.
    """

    num_clips: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int
    clips_per_batch: int
    questions_per_clip: int

    def __post_init__(self) -> None:
        if len(self.num_clips) != len(self.weights) or sum(self.num_clips) < 1:
            raise ValueError(f"nothing to draw from: {self.num_clips} clips with weights {self.weights}")

    def batch(self, step: int) -> list[Draw]:
        """The `clips_per_batch` draws of an optimiser step, counted from 0, over all workers."""
        start = step * self.clips_per_batch
        return [self.draw(number) for number in range(start, start + self.clips_per_batch)]

    def slice(self, step: int, *, rank: int, world_size: int, accumulate: int = 1) -> list[list[Draw]]:
        """Micro-batches of one worker: its consecutive part of the batch in `accumulate` equal parts.

        Raises ValueError when the batch does not split evenly, or `rank` is no worker.
        """
        parts = world_size * accumulate
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside 0..{world_size - 1}")
        if self.clips_per_batch % parts:
            raise ValueError(f"{self.clips_per_batch} clips do not split into {world_size} x {accumulate} equal parts")
        batch, size = self.batch(step), self.clips_per_batch // parts
        first = rank * accumulate
        return [batch[part * size : (part + 1) * size] for part in range(first, first + accumulate)]

    def draw(self, number: int) -> Draw:
        """The `number`-th clip that is drawn, counted from 0."""
        block = self._block_of(number)
        dataset, earlier = _place(self._counts(block), self.seed, block, number - self._drawn_before(block))
        visit, place = divmod(earlier + self._drawn(dataset, block), self.num_clips[dataset])
        return Draw(dataset, int(self._order(dataset, visit)[place]), visit)

    def questions(self, draw: Draw, num_questions: int) -> list[int]:
        """Which of a clip's questions (numbers below `num_questions`) this draw asks: `questions_per_clip` of them.

        A clip's questions stand in a fixed random circle. Each visit goes on where the last one stopped; a clip with fewer
        questions than asked for repeats them.
        """
        circle = _rng(self.seed, "questions", draw.dataset, draw.clip).permutation(num_questions)
        first = draw.visit * self.questions_per_clip
        return [int(circle[(first + i) % num_questions]) for i in range(self.questions_per_clip)]

    def _order(self, dataset: int, visit: int) -> np.ndarray:
        """Of the dataset's clips. One is kept for each dataset: draws that follow each other seldom need an earlier one."""
        kept, order = self._orders.get(dataset, (None, None))
        if order is None or kept != visit:
            order = _rng(self.seed, "clips", dataset, visit).permutation(self.num_clips[dataset])
            self._orders[dataset] = visit, order
        return order

    @cached_property
    def _orders(self) -> dict[int, tuple[int, np.ndarray]]:
        return {}

    # ---------------------------------------------------------------------------------------------- mixing
    def _rate(self, dataset: int) -> float:
        """Expected draws of a dataset in one round."""
        largest = max(weight for weight, clips in zip(self.weights, self.num_clips) if clips)
        return self.weights[dataset] / largest * self.num_clips[dataset]

    def _drawn(self, dataset: int, block: int) -> int:
        """Draws of a dataset before round `block`."""
        return int(block * self._rate(dataset) + 0.5)

    def _counts(self, block: int) -> tuple[int, ...]:
        return tuple(self._drawn(s, block + 1) - self._drawn(s, block) for s in range(len(self.num_clips)))

    def _drawn_before(self, block: int) -> int:
        return sum(self._drawn(s, block) for s in range(len(self.num_clips)))

    def _block_of(self, number: int) -> int:
        """The round that holds draw `number`: near number / round size, a step away at most by rounding."""
        block = int(number / sum(self._rate(s) for s in range(len(self.num_clips))))
        while self._drawn_before(block) > number:
            block -= 1
        while self._drawn_before(block + 1) <= number:
            block += 1
        return block


def seed_of(*parts: int | str) -> int:
    """A seed of its own, below 2**60, for every tuple of parts, such as (seed, stage, step, rank, micro-batch)."""
    return int(content_hash(*parts, length=15), 16)


def place_of(part: int, *, rank: int, parts: int, accumulate: int) -> tuple[int, int]:
    """(worker, its micro-batch) that this worker's micro-batch `part` of `parts` is when every worker has `accumulate`: what
    is drawn for it depends on its place in the step, not on how many workers there happen to be."""
    return divmod(rank * parts + part, accumulate)


def evenly(count: int, most: int | None) -> list[int]:
    """At most `most` of the numbers 0..count - 1, evenly spread; all of them for None."""
    if most is None or most >= count:
        return list(range(count))
    return [index * count // most for index in range(most)]


def _place(counts: tuple[int, ...], seed: int, block: int, position: int) -> tuple[int, int]:
    """(dataset at `position` of a round, how many of its draws stand before it in the round)."""
    if len(counts) == 1:
        return 0, position
    datasets, earlier = _round(counts, seed, block)
    return int(datasets[position]), int(earlier[position])


@lru_cache(maxsize=1)
def _round(counts: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    datasets = _rng(seed, "mix", block).permutation(np.repeat(np.arange(len(counts)), counts))
    earlier = np.zeros(len(datasets), dtype=np.int64)
    for dataset, count in enumerate(counts):
        earlier[datasets == dataset] = np.arange(count)
    return datasets, earlier


def _rng(*parts: int | str) -> np.random.Generator:
    """A stream of its own for every tuple of parts."""
    return np.random.default_rng(seed_of(*parts))
