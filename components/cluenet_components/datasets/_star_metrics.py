"""STAR's metrics and the submission file of its leaderboard (https://eval.ai/web/challenges/challenge-page/1325).

Accuracy of each of the four types; `Mean` is the mean of the four (macro, as the leaderboard and SeViLA report it),
`Overall` the mean over all questions (micro, as LLaMA-VQA reports it). They differ by points, so both stand side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cluenet.verdicts import MeanOf, Measure, Verdict, accuracy_share

TYPES = ("Interaction", "Sequence", "Prediction", "Feasibility")
NO_PREDICTION = -1
"""In the submission: no choice has this number, so it is wrong."""


def accuracies(verdicts: Sequence[Verdict]) -> list[Measure]:
    """By type, macro, micro. A row whose type is not known counts in `Overall` alone."""
    by_type = [accuracy_share(kind, [one for one in verdicts if one.type == kind]) for kind in TYPES]
    return [*by_type, MeanOf("Mean", TYPES), accuracy_share("Overall", verdicts)]


def submission(verdicts: Sequence[Verdict]) -> str:
    """{type: [{"question_id", "answer"}]}; `answer` counts the choices in the order in which the file stores them."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in TYPES}
    for one in verdicts:
        if one.type in rows:
            answer = NO_PREDICTION if one.prediction is None else one.prediction
            rows[one.type].append({"question_id": one.id, "answer": answer})
    return json.dumps(rows, indent=1) + "\n"
