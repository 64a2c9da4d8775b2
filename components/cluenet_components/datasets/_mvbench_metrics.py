"""MVBench's accuracies and result files, as `mvbench.ipynb` of OpenGVLab/Ask-Anything (video_chat2) writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from string import ascii_uppercase

from cluenet.verdicts import MeanOf, Measure, Verdict, accuracy_share
from cluenet_components.datasets._mvbench_tasks import TASKS

NO_REPLY = "none"
"""In place of a prediction that there is not: wrong in the official `check_ans`, which takes "" for the right answer."""
NO_ANSWER = "(?) unreadable row"


def measures(verdicts: Sequence[Verdict]) -> list[Measure]:
    """`avg`: mean of the tasks' accuracies. `accuracy`: over all questions, which the notebook calls "Avg"; the two are one
    where every task has 200 questions. Then every task."""
    tasks = _by_task(verdicts)
    shares = [accuracy_share(task, rows) for task, rows in tasks.items()]
    return [MeanOf("avg", tuple(tasks)), accuracy_share("accuracy", verdicts), *shares]


def result_files(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """`mvbench.json`: {"acc_dict": {task: [right, questions]}, "res_list": [{"pred", "gt"}]}, tasks and questions in the
    official order. `upload_leaderboard.json`: {task: percent, "Avg": percent of all questions}."""
    tasks = _by_task(verdicts)
    counts = {task: [sum(one.correct for one in rows), len(rows)] for task, rows in tasks.items()}
    replies = [{"pred": _prediction(one), "gt": _answer(one)} for rows in tasks.values() for one in rows]
    percents = {task: 100 * right / number for task, (right, number) in counts.items()}
    percents["Avg"] = 100 * sum(one.correct for one in verdicts) / max(len(verdicts), 1)
    return {
        "mvbench.json": json.dumps({"acc_dict": counts, "res_list": replies}, ensure_ascii=False),
        "upload_leaderboard.json": json.dumps(percents),
    }


def lettered(index: int, option: str) -> str:
    """`(B) option`, as the notebook writes answers."""
    return f"({ascii_uppercase[index]}) {option}"


def _by_task(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """Tasks in the official order; questions by id, which is the order of their file."""
    found = {task: [one for one in verdicts if one.type == task] for task in TASKS}
    return {task: sorted(rows, key=lambda one: one.id) for task, rows in found.items() if rows}


def _prediction(one: Verdict) -> str:
    return lettered(one.prediction, one.options[one.prediction]) if isinstance(one.prediction, int) else NO_REPLY


def _answer(one: Verdict) -> str:
    return str(one.meta.get("gt", NO_ANSWER))
