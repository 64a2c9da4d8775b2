"""The order in which a question's options are shown, so that no score depends on the order in which a dataset stores them.

Options are sorted by their words and then shuffled by a seed made of `evaluate.seed`, the dataset, the question's id and the
number of the shuffle. A model, and whatever is measured on it, meets this order alone; results are told in the stored one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from cluenet.evaluate.replies import named_option
from cluenet.records import Answer, Example, content_hash

Order: TypeAlias = tuple[int, ...]
"""At each place, the index of the stored option that is shown there."""

_INDEXES = frozenset(
    {"prediction", "target", "after", "through", "unfiltered", "clue_only", "frames_only", "text_only"}
)
_BY_OPTION = "proximity"


def shown_order(example: Example, *, seed: int, shuffle: int) -> Order:
    """Of the shuffle with this number, from 0. The same options in another stored order are shown in the same order."""
    order = sorted(range(len(example.options)), key=example.options.__getitem__)
    random.Random(content_hash(seed, example.dataset, example.id, shuffle)).shuffle(order)
    return tuple(order)


def stored_order(example: Example) -> Order:
    return tuple(range(len(example.options)))


def stored_answer(answer: Answer, shown: Example, order: Order) -> Answer:
    """The answer to `shown`, in the stored order. Where it was written, `prediction` is the option that the reply names, or
    None where it names none."""
    if not shown.options:
        return answer
    place = answer.prediction if answer.reply is None else named_option(answer.reply, shown.options)
    prediction = order[place] if isinstance(place, int) else None
    return replace(answer, prediction=prediction, option_logprobs=tuple(stored_values(answer.option_logprobs, order)))


def stored_record(record: Any, order: Order) -> Any:
    """What `model.interventions` or `model.diagnostics` say of a question, with its options in the stored order."""
    if not isinstance(record, Mapping):
        return record
    return {name: _stored(name, value, order) for name, value in record.items()}


def _stored(name: str, value: Any, order: Order) -> Any:
    if name in _INDEXES and isinstance(value, int):
        return order[value]
    if name == _BY_OPTION and value is not None:
        return stored_values(value, order)
    return stored_record(value, order)


def stored_values(values: Sequence[float], order: Order) -> list[float]:
    """A value per option, from the shown order to the stored one."""
    stored = dict(zip(order, values, strict=True))
    return [stored[index] for index in range(len(order))]
