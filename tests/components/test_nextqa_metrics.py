"""NExT-QA's accuracies and result file, against hand-computed values and against the rule of eval_mc.py in plain Python."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import Verdict
from cluenet_components.datasets._nextqa_rows import TYPES
from cluenet_components.datasets.nextqa import NextQaDataset


def verdict(number: int, kind: str | None, prediction: int | None, answer: int = 0) -> Verdict:
    asked = kind is not None
    return Verdict(
        f"v{number % 7}_{number}", f"v{number % 7}", kind, answer=answer if asked else None, prediction=prediction,
        correct=prediction == answer, meta={"answer": answer} if asked else {}, asked=asked,
    )  # fmt: skip


def values(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    found = measured(NextQaDataset.measures(verdicts), resamples=100)
    return {name: number["value"] for name, number in found.items()}


def test_by_hand() -> None:
    found = values([
        verdict(0, "CW", 0), verdict(1, "CW", 1), verdict(2, "CH", 0), verdict(3, "TN", 1), verdict(4, "TP", 0),
        verdict(5, "TC", 0), verdict(6, "DL", None), verdict(7, None, None),
    ])  # fmt: skip
    assert found == {
        "CW": 1 / 2, "CH": 1, "TN": 1 / 2, "TC": 1, "DC": None, "DL": 0, "DO": None,
        "Acc@C": pytest.approx(2 / 3), "Acc@T": pytest.approx(2 / 3), "Acc@D": 0, "Acc@All": pytest.approx(4 / 8),
    }  # fmt: skip


def published_rule(types: dict[str, str], results: dict[str, dict]) -> dict[str, float]:
    """In words: TP becomes TN; a question is right when its two numbers are equal; sums by type, first letter, and all."""
    right: dict[str, list[bool]] = {}
    for key, kind in types.items():
        kind = "TN" if kind == "TP" else kind
        hit = results[key]["answer"] == results[key]["prediction"]
        for name in (kind, f"Acc@{kind[0]}", "Acc@All"):
            right.setdefault(name, []).append(hit)
    return {name: sum(hits) / len(hits) for name, hits in right.items()}


@pytest.mark.parametrize("seed", range(5))
def test_random_predictions_and_missing_ones_agree_with_the_published_rule(seed: int) -> None:
    rng = random.Random(seed)
    predictions = (0, 1, 2, 3, 4, None)
    verdicts = [verdict(i, rng.choice(TYPES), rng.choice(predictions), rng.randrange(5)) for i in range(300)]
    (text,) = NextQaDataset.result_files(verdicts).values()
    results = json.loads(text)
    assert set(results) == {one.id for one in verdicts}
    assert all(set(row) == {"prediction", "answer"} for row in results.values())
    types = {one.id: one.type or "" for one in verdicts}
    assert values(verdicts) == pytest.approx(published_rule(types, results))


def test_a_question_that_was_never_asked_is_wrong_in_the_official_script_too() -> None:
    lost = Verdict("v_1", "v.mp4", "CW", meta={"answer": 2}, asked=False)
    results = json.loads(NextQaDataset.result_files([lost])["result.json"])
    assert results == {"v_1": {"prediction": -1, "answer": 2}}
    unreadable = Verdict("v_2", "train.csv", "CW", asked=False)
    row = json.loads(NextQaDataset.result_files([unreadable])["result.json"])["v_2"]
    assert row["prediction"] != row["answer"]
