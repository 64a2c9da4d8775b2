"""What the model writes to a batch of questions, greedily (see `writing`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from cluenet.model.prefix import Prefix
from cluenet.model.writing import Text, Writer

if TYPE_CHECKING:
    from cluenet.model.answer_rows import TokenIds
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet


@dataclass(frozen=True)
class Writing:
    """Which questions are answered by writing. Open ones always are, since they have no options to score."""

    every: bool = False  # those with options too
    most_tokens: int = 32  # a text that has not ended by then is cut


def replies(
    model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor, writing: Writing
) -> dict[tuple[int, int], str]:
    """Text for every question (b, q) that is answered by writing; `embeds_BLD`: the answer pass's inputs, clues in place."""
    asked = [
        (b, q) for b, clip in enumerate(batch.clips) for q, example in enumerate(clip) if writing.every or not example.options
    ]  # fmt: skip
    tokens = written(model, batch, prefix, embeds_BLD, batch.answer.answer_index_BQ, asked, most=writing.most_tokens)
    return {place: model.vlm.tokenizer.decode(ids, skip_special_tokens=True).strip() for place, ids in tokens.items()}


def written(
    model: ClueNet, batch: Batch, prefix: Prefix | None, embeds_BLD: Tensor, after_BQ: Tensor,
    asked: Collection[tuple[int, int]], *, most: int,
) -> dict[tuple[int, int], TokenIds]:  # fmt: skip
    """Token ids, without the end, of what the model writes after column `after_BQ` of the answer pass for the questions
    `asked` (b, q), all of them side by side; cut after `most` tokens. `embeds_BLD`: the answer pass's inputs."""
    if not asked:
        return {}
    places = range(after_BQ.shape[1])
    texts = [
        [Text((b, q), most) if (b, q) in asked else None for q in places] for b in range(len(after_BQ))
    ]  # fmt: skip
    writer = Writer(model.vlm)
    ended = writer.begin(batch.answer.packed, embeds_BLD, prefix, after_BQ, texts) + writer.to_end()
    return {text.name: text.tokens for text in ended}
