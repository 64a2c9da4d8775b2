"""A micro-batch as training would collate it: real questions where the data is here, black frames, pixels without content."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from cluenet.config.train import Stage
from cluenet.model.batch import Batch
from cluenet.model.pipeline import ClueNet
from cluenet.records import Clue, Example, Frames, VideoRef


def micro_batch(model: ClueNet, stage: Stage, frames: Frames, examples: Sequence[Example], *, clips: int) -> Batch:
    """`model`: not loaded (`cluenet.estimate.unloaded`). `examples`: their texts are used in turn; empty: invented ones."""
    texts = cycle(examples or [invented_example()])
    asked = [(frames, list(islice(texts, stage.questions_per_clip))) for _ in range(clips)]
    return model.collate(asked, seed=0, shuffle_options=False, chain=stage.losses.chain > 0)


def invented_example() -> Example:
    """As long as questions of common benchmarks: 10 to 15 words, four options of five, a chain of 25."""
    return Example(
        id="invented", dataset="invented", video=VideoRef("invented.mp4"),
        question="what does the person in the white shirt do after opening the door ?",
        options=tuple(f"{word} the small red box on the table" for word in ("takes", "opens", "moves", "leaves")),
        answer=0, clues=(Clue("the person takes the box", 0.0, 1.0),),
        chain="first the person opens the door , then walks to the table and takes the small red box that stands there . so takes it",
    )  # fmt: skip
