"""STAR's accuracies and submission file: by hand, and against both published means in plain Python."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import Verdict
from cluenet_components.datasets.star import StarDataset

TYPES = ("Interaction", "Sequence", "Prediction", "Feasibility")


def verdict(number: int, kind: str | None, prediction: int | None, answer: int | None = 0) -> Verdict:
    return Verdict(
        f"{kind}_T1_{number}", f"v{number % 7}", kind, ("w", "x", "y", "z"), answer, prediction,
        correct=answer is not None and prediction == answer,
    )  # fmt: skip


def values(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    return {name: number["value"] for name, number in measured(StarDataset.measures(verdicts), resamples=100).items()}


def test_both_means_by_hand() -> None:
    found = values([
        verdict(0, "Interaction", 0), verdict(1, "Interaction", 0), verdict(2, "Interaction", 0), verdict(3, "Sequence", 1),
        verdict(4, "Prediction", None), verdict(5, "Feasibility", 0), verdict(6, None, None),
    ])  # fmt: skip
    assert found == {
        "Interaction": 1, "Sequence": 0, "Prediction": 0, "Feasibility": 1, "Mean": 2 / 4, "Overall": pytest.approx(4 / 7),
    }  # fmt: skip


def test_the_published_trap_macro_and_micro_of_the_same_answers() -> None:
    """SeViLA's four accuracies (63.7, 70.4, 63.1, 62.4) are 64.9 as a macro mean, whatever the number of questions."""
    right = {"Interaction": 637, "Sequence": 704, "Prediction": 631, "Feasibility": 624}
    verdicts = [verdict(i, kind, 0 if i < count else 1) for kind, count in right.items() for i in range(1000)]
    more = [verdict(1000 + i, "Sequence", 0 if i % 1000 < 704 else 1) for i in range(3000)]
    assert values(verdicts)["Mean"] == values(verdicts + more)["Mean"] == pytest.approx(0.649)
    assert values(verdicts + more)["Overall"] == pytest.approx((637 + 4 * 704 + 631 + 624) / 7000)


def published_rule(verdicts: Sequence[Verdict], submission: dict[str, list[dict]]) -> dict[str, float]:
    """In words: per type, the share of questions whose submitted number is the right one; the mean of the four; all."""
    answers = {one.id: one.answer for one in verdicts}
    hits = {kind: [answers[row["question_id"]] == row["answer"] for row in rows] for kind, rows in submission.items()}
    by_type = {kind: sum(found) / len(found) for kind, found in hits.items()}
    everything = [hit for found in hits.values() for hit in found]
    return {**by_type, "Mean": sum(by_type.values()) / 4, "Overall": sum(everything) / len(everything)}


@pytest.mark.parametrize("seed", range(5))
def test_random_predictions_and_missing_ones_agree_with_the_published_rule(seed: int) -> None:
    rng = random.Random(seed)
    verdicts = [
        verdict(i, rng.choice(TYPES), rng.choice((0, 1, 2, 3, None)), rng.randrange(4)) for i in range(200)
    ]  # fmt: skip
    (text,) = StarDataset.result_files(verdicts).values()
    assert values(verdicts) == pytest.approx(published_rule(verdicts, json.loads(text)))


def test_the_submission_has_every_question_of_a_split_without_answers() -> None:
    lost = Verdict("Sequence_T3_9", "v.mp4", "Sequence", asked=False)
    files = StarDataset.result_files([verdict(1, "Prediction", 2, answer=None), lost])
    assert {name: json.loads(text) for name, text in files.items()} == {
        "submission.json": {
            "Interaction": [], "Sequence": [{"question_id": "Sequence_T3_9", "answer": -1}],
            "Prediction": [{"question_id": "Prediction_T1_1", "answer": 2}], "Feasibility": [],
        }
    }  # fmt: skip
