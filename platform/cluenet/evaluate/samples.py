"""One line of samples.jsonl: a question, what the model answered and why, and what would have been right.

    id dataset type video start_seconds end_seconds clip    what was asked about; `clip` is its key in the prepared set
    question options answer                                 `answer` as in `records.Example`, null where it is not known
    doc_id         place of the question among the dataset's rows, bad ones included
    order          at each letter, the index of the option that was shown there
    prediction option_logprobs correct                      with the model's own clues; `correct` null without an answer,
                   `prediction` null where the model's reply names no option
    reply          what the model wrote as its answer, here and in `rows` and `shuffles`; only where it did
    rows           {row: {prediction, option_logprobs, correct}} of the other rows: oracle, none, text
    shuffles       [{prediction, option_logprobs, correct}] with the options in other orders; only with several
    target filtered_resps    the right answer, null where it is not known, and [the model's], in words: names of lmms-eval
    clues          [{text, words, start_seconds, end_seconds, box, gate, kept, pointing, pointing_chance}] as stated
    true_clues     [{text, words, start_seconds, end_seconds, boxes}], or null where clues are not labelled
    chain          the labelled reasoning, or null
    generated_chain   what the model wrote before it answered, here and in each of `rows`; only with `generate_chain`
    meta           what the benchmark's own metric needs, as the dataset gave it
    tokens         {visual, seen, clue_words}: of the clip, those that the answer pass saw, words of the kept clues
    faithfulness   only with `evaluate.faithfulness`: what the answer did when the clues were changed, see
                   `cluenet.model.interventions`; null for an open question
    diagnostics    with it: what the model sees, understands and concludes, see `cluenet.model.diagnostics`

Indexes of options, and values by option, are in the order in which the dataset stores them. Times are seconds of the video
file, boxes fractions of the frame, floats rounded to 6 digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluenet.errors import CheckpointError
from cluenet.metrics.accuracy import is_right
from cluenet.metrics.clues import SILENT, Stated
from cluenet.metrics.grounding import pointing
from cluenet.plain import clue_row, rounded
from cluenet.records import Answer, Box, Clue, Example, PredictedClue

Sample = dict[str, Any]


@dataclass(frozen=True)
class View:
    """How the model sees a clip. `block_seconds`: middle of every temporal block, from the start of the clip."""

    shape: tuple[int, int, int]  # blocks, rows, cols
    block_seconds: tuple[float, ...]
    seen: int  # how many visual tokens the answer pass sees

    @property
    def tokens(self) -> int:
        return math.prod(self.shape)


def sample_of(
    example: Example, clip: str, order: Sequence[int], answers: Mapping[str, Answer], true_words: Sequence[tuple[str, ...]],
    view: View,
) -> Sample:  # fmt: skip
    """`answers`: by row, `own` among them. `true_words`: words of each labelled clue, empty for a model without clues.

    Raises CheckpointError when the model's numbers are not finite.
    """
    video, own = example.video, answers["own"]
    boxes = [_moved(box, -video.start_seconds) for clue in example.clues or () for box in clue.boxes]
    stated = [_stated(clue, boxes, view, video.start_seconds) for clue in own.clues]
    others = {row: verdict(example, answer) for row, answer in answers.items() if row != "own"}
    line: Sample = rounded({
        "id": example.id, "dataset": example.dataset, "type": example.type, "video": video.path,
        "start_seconds": video.start_seconds, "end_seconds": video.end_seconds, "clip": clip,
        "question": example.question, "options": list(example.options), "answer": example.answer,
        "order": list(order), **verdict(example, own), "rows": others, "target": example.answer_text,
        "filtered_resps": [_words(example, own.prediction)],
        "clues": stated, "true_clues": _true_clues(example.clues, true_words), "chain": example.chain, "meta": dict(example.meta),
        "tokens": {"visual": view.tokens, "seen": view.seen, "clue_words": _num_words(own)},
    })  # fmt: skip
    return line


def verdict(example: Example, answer: Answer) -> dict[str, Any]:
    """What was answered, and whether it is right."""
    if not all(map(math.isfinite, answer.option_logprobs)):
        raise CheckpointError(
            f"question {example.id}: the model's log-probabilities are {list(answer.option_logprobs)}, not numbers. Its weights "
            "are damaged or training diverged: lower the learning rate and train again."
        )
    right = None if example.answer is None else is_right(answer.prediction, example.answer)
    wrote = {"generated_chain": answer.chain, "reply": answer.reply}
    return {
        "prediction": answer.prediction, "option_logprobs": list(answer.option_logprobs), "correct": right,
        **{name: text for name, text in wrote.items() if text is not None},
    }  # fmt: skip


def _words(example: Example, prediction: int | str | None) -> str | None:
    return example.options[prediction] if isinstance(prediction, int) else prediction


def _stated(clue: PredictedClue, boxes: Sequence[Box], view: View, offset: float) -> dict[str, Any]:
    """Pointing is null without attention or without a box to point at."""
    hit, likely = (
        pointing(clue.attention_N, view.shape, boxes, view.block_seconds)
        if clue.attention_N and boxes
        else (None, None)
    )
    return {**clue_row(clue, offset), "pointing": hit, "pointing_chance": likely}


def _true_clues(clues: Sequence[Clue] | None, words: Sequence[tuple[str, ...]]) -> list[dict[str, Any]] | None:
    if clues is None:
        return None
    padded = [*map(list, words), *[[]] * (len(clues) - len(words))]
    return [
        {"text": clue.text, "words": said, "start_seconds": clue.start_seconds, "end_seconds": clue.end_seconds,
         "boxes": [asdict(box) for box in clue.boxes]}
        for clue, said in zip(clues, padded)
    ]  # fmt: skip


def _moved(box: Box, seconds: float) -> Box:
    return replace(box, seconds=box.seconds + seconds)


def _num_words(answer: Answer) -> int:
    return sum(word not in SILENT for clue in answer.clues if clue.kept for word in clue.words)


def stated_clues(rows: Sequence[Mapping[str, Any]]) -> list[Stated]:
    """Clues of a sample, stated or true, as `cluenet.metrics.clues` takes them."""
    return [
        Stated(
            tuple(row["words"]), None if row["start_seconds"] is None else (row["start_seconds"], row["end_seconds"])
        )
        for row in rows
    ]
