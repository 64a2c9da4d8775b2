"""NExT-QA's metric and result file, as `eval_mc.py` of https://github.com/doc-doc/NExT-QA has them.

A question counts under its type, TP ("what before") under TN; Acc@C, Acc@T and Acc@D are over causal, temporal and
descriptive questions (the type's first letter), Acc@All over all of them: every one a mean over questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluenet.verdicts import Measure, Verdict, accuracy_share

MERGED = {"TP": "TN"}
TYPES = ("CW", "CH", "TN", "TC", "DC", "DL", "DO")
GROUPS = ("C", "T", "D")
NO_PREDICTION = -1
"""In result files: no option has this number, so it is wrong."""


def accuracies(verdicts: Sequence[Verdict]) -> list[Measure]:
    """By type, by group, and over all. A row whose type is not known counts in Acc@All alone."""
    by_type = {kind: [one for one in verdicts if MERGED.get(one.type or "", one.type) == kind] for kind in TYPES}
    groups = {group: [one for one in verdicts if (one.type or "").startswith(group)] for group in GROUPS}
    return [
        *(accuracy_share(kind, found) for kind, found in by_type.items()),
        *(accuracy_share(f"Acc@{group}", found) for group, found in groups.items()),
        accuracy_share("Acc@All", verdicts),
    ]


def result_rows(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
    """{key: {"prediction", "answer"}} of every row. `meta["answer"]`: the right index, for rows without a prediction."""
    return {one.id: {"prediction": _number(one.prediction), "answer": one.meta.get("answer")} for one in verdicts}


def _number(prediction: int | str | None) -> int | str:
    return NO_PREDICTION if prediction is None else prediction


def as_json(rows: Mapping[str, Any]) -> str:
    return json.dumps(rows, indent=1) + "\n"
