"""MVBench's accuracies and result files, by hand and against the notebook's rules in plain Python."""

from __future__ import annotations

import json
import random

import pytest

from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import Verdict
from cluenet_components.datasets._mvbench_metrics import lettered, measures, result_files

OPTIONS = ("Sat down.", "Took the cup.", "Left.")


def verdict(task: str, number: int, prediction: int | None, answer: int = 0) -> Verdict:
    return Verdict(
        f"{task}-{number:04d}", f"v{number}", task, OPTIONS if prediction is not None else (), answer, prediction,
        prediction == answer, meta={"gt": lettered(answer, OPTIONS[answer])}, asked=prediction is not None,
    )  # fmt: skip


def check_ans(pred: str, gt: str) -> bool:
    """The notebook's rule: the first words, in lower case, contain one another."""
    pred_option = pred.lower().split(" ")[0]
    gt_option = gt.lower().split(" ")[0]
    return pred_option.replace(".", "") in gt_option or gt_option in pred_option


def test_by_hand() -> None:
    rows = [verdict("Moving Count", 0, 0), verdict("Moving Count", 1, 1), verdict("Moving Count", 2, None),
            verdict("Action Sequence", 0, 2, 2)]  # fmt: skip
    found = measured(measures(rows), resamples=50)
    assert list(found) == ["avg", "accuracy", "Action Sequence", "Moving Count"]
    assert {name: (pytest.approx(one["value"]), one["n"]) for name, one in found.items()} == {
        "avg": ((1 + 1 / 3) / 2, 2), "accuracy": (2 / 4, 4), "Action Sequence": (1.0, 1), "Moving Count": (1 / 3, 3),
    }  # fmt: skip
    answered = measured(measures([one for one in rows if one.prediction is not None]), resamples=50)
    assert (answered["Moving Count"]["value"], answered["avg"]["value"]) == (0.5, 0.75)


def test_an_empty_reply_is_right_in_the_notebook_and_wrong_here() -> None:
    assert check_ans("(" + "", "(A) Sat down.")
    files = result_files([verdict("Moving Count", 0, None)])
    (reply,) = json.loads(files["mvbench.json"])["res_list"]
    assert not check_ans(reply["pred"], reply["gt"])
    assert json.loads(files["mvbench.json"])["acc_dict"] == {"Moving Count": [0, 1]}


def test_random_replies_agree_with_the_notebook() -> None:
    rng = random.Random(0)
    tasks = ("Unexpected Action", "Action Sequence", "State Change")
    rows = [
        verdict(task, number, rng.choice((0, 1, 2, None)), rng.randrange(3)) for task in tasks for number in range(40)
    ]
    rng.shuffle(rows)
    files = result_files(rows)
    found = json.loads(files["mvbench.json"])
    assert list(found) == ["acc_dict", "res_list"]
    assert list(found["acc_dict"]) == ["Action Sequence", "Unexpected Action", "State Change"]
    counted: dict[str, list[int]] = {}
    order = [task for task in found["acc_dict"] for _ in range(40)]
    for task, reply in zip(order, found["res_list"], strict=True):
        counts = counted.setdefault(task, [0, 0])
        counts[0] += check_ans(reply["pred"], reply["gt"])
        counts[1] += 1
    assert counted == found["acc_dict"]
    values = measured(measures(rows), resamples=50)
    assert {task: values[task]["value"] for task in counted} == pytest.approx(
        {t: a / b for t, (a, b) in counted.items()}
    )
    uploaded = json.loads(files["upload_leaderboard.json"])
    assert uploaded["Avg"] == pytest.approx(100 * sum(a for a, _ in counted.values()) / 120)
    assert uploaded["Avg"] == pytest.approx(100 * values["avg"]["value"]), "one number where tasks are of one size"


def test_questions_stand_in_the_order_of_their_file_and_bad_rows_keep_their_place() -> None:
    bad = Verdict("Moving Count-0001", "moving_count.json", "Moving Count", asked=False)
    files = result_files([verdict("Moving Count", 2, 1, 1), bad, verdict("Moving Count", 0, 0, 2)])
    assert json.loads(files["mvbench.json"])["res_list"] == [
        {"pred": "(A) Sat down.", "gt": "(C) Left."}, {"pred": "none", "gt": "(?) unreadable row"},
        {"pred": "(B) Took the cup.", "gt": "(B) Took the cup."},
    ]  # fmt: skip


def test_nothing_to_count_gives_files_all_the_same() -> None:
    assert json.loads(result_files([])["upload_leaderboard.json"]) == {"Avg": 0.0}
