"""NExT-GQA's grounding metrics and files: by hand, and against the rule of eval_ground.py in plain Python."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import Verdict
from cluenet_components.datasets._nextgqa_metrics import overlap
from cluenet_components.datasets.nextgqa import NextGqaDataset

Span = tuple[float, float]


def verdict(number: int, span: Span | None, truth: Sequence[Span] | None, *, correct: bool = True) -> Verdict:
    spans = {} if truth is None else {"spans": [list(one) for one in truth]}
    return Verdict(
        f"v{number % 7}_{number}", f"v{number % 7}", "CW", answer=1, prediction=1 if correct else 0, correct=correct,
        span=span, meta={"answer": 1, **spans},
    )  # fmt: skip


def values(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    found = measured(NextGqaDataset.measures(verdicts), resamples=100)
    return {name: number["value"] for name, number in found.items()}


@pytest.mark.parametrize(
    ("span", "truth", "iou", "iop"),
    [
        ((0.0, 4.0), (2.0, 6.0), 2 / 6, 2 / 4),
        ((2.0, 3.0), (0.0, 10.0), 1 / 10, 1.0),
        ((0.0, 10.0), (2.0, 3.0), 1 / 10, 1 / 10),
        ((0.0, 1.0), (5.0, 6.0), 0.0, 0.0),
        ((0.0, 1.0), (1.0, 2.0), 0.0, 0.0),
        ((3.0, 3.0), (2.0, 4.0), 0.0, 1.0),
        ((4.0, 4.0), (2.0, 4.0), 0.0, 1.0),
        ((5.0, 5.0), (2.0, 4.0), 0.0, 0.0),
        ((2.0, 4.0), (3.0, 3.0), 0.0, 0.0),
    ],
)
def test_overlap_by_hand(span: Span, truth: Span, iou: float, iop: float) -> None:
    assert overlap(span, truth) == (pytest.approx(iou), pytest.approx(iop))


def test_measures_by_hand() -> None:
    found = values([
        verdict(0, (0.0, 4.0), [(2.0, 6.0), (20.0, 30.0)]),  # IoU 1/3, IoP 1/2
        verdict(1, (0.0, 4.0), [(2.0, 6.0)], correct=False),  # grounded, and wrong
        verdict(2, (3.0, 3.0), [(2.0, 4.0)]),  # IoP 1 at no length
        verdict(3, None, [(0.0, 4.0)]),  # right, and pointed nowhere
    ])  # fmt: skip
    assert found == pytest.approx({
        "Acc@QA": 3 / 4, "Acc@GQA": 2 / 4, "mIoP": 2 / 4, "IoP@0.3": 3 / 4, "IoP@0.5": 3 / 4, "mIoU": (1 / 3 + 1 / 3) / 4,
        "IoU@0.3": 2 / 4, "IoU@0.5": 0.0,
    })  # fmt: skip


def test_a_split_without_spans_has_answers_alone() -> None:
    assert values([verdict(0, (0.0, 1.0), None)]) == {"Acc@QA": 1.0}


def published_rule(
    labels: dict[str, list[list[float]]], spans: dict[str, list[float]], answers: dict[str, Any]
) -> dict:
    """In words, for spans in seconds: union and intersection by the outer and inner ends; the best over the labelled spans,
    no less than 0; a prediction of one moment is inside or not; right and IoP >= 0.5 is grounded and answered."""
    ious, iops, both = [], [], 0
    for key, truths in labels.items():
        start, end = spans[key]
        best_iou = best_iop = 0.0
        for low, high in truths:
            if start == end:
                iou, iop = 0.0, 1.0 if low <= start <= high else 0.0
            else:
                inner = min(high, end) - max(low, start)
                iou, iop = inner / (max(high, end) - min(low, start)), inner / (end - start)
            best_iou, best_iop = max(best_iou, iou), max(best_iop, iop)
        ious.append(best_iou)
        iops.append(best_iop)
        both += best_iop >= 0.5 and answers[key]["answer"] == answers[key]["prediction"]
    share = {f"{name}@{at}": sum(value >= at for value in found) / len(found)
             for name, found in (("IoP", iops), ("IoU", ious)) for at in (0.3, 0.5)}  # fmt: skip
    return {"mIoP": sum(iops) / len(iops), "mIoU": sum(ious) / len(ious), "Acc@GQA": both / len(ious), **share}


def random_span(rng: random.Random) -> Span:
    start = float(rng.randrange(20))
    return start, start + rng.choice((0.0, 1.0, 3.0, 9.0))


@pytest.mark.parametrize("seed", range(5))
def test_random_spans_and_missing_ones_agree_with_the_published_rule(seed: int) -> None:
    rng = random.Random(seed)
    verdicts = []
    for number in range(200):
        truth = sorted((low, high + 1.0) for low, high in (random_span(rng) for _ in range(rng.randrange(1, 4))))
        span = None if rng.random() < 0.2 else random_span(rng)
        verdicts.append(verdict(number, span, truth, correct=rng.random() < 0.5))
    files = {name: json.loads(text) for name, text in NextGqaDataset.result_files(verdicts).items()}
    assert set(files["ground_ada.json"]) == set(files["res.json"]) == {one.id for one in verdicts}
    labels = {one.id: one.meta["spans"] for one in verdicts}
    found = values(verdicts)
    assert found.pop("Acc@QA") == pytest.approx(sum(one.correct for one in verdicts) / 200)
    assert found == pytest.approx(published_rule(labels, files["ground_ada.json"], files["res.json"]))


def test_what_was_never_asked_is_wrong_and_stays_in_every_denominator() -> None:
    lost = Verdict("v_9", "v.mp4", "CW", meta={"answer": 2, "spans": [[0.0, 3.0]]}, asked=False)
    unreadable = Verdict("test-7", "test.csv", None, asked=False)
    found = measured(NextGqaDataset.measures([verdict(0, (0.0, 4.0), [(0.0, 4.0)]), lost, unreadable]), resamples=100)
    assert {number["n"] for number in found.values()} == {3}
    assert [number["value"] for number in found.values()] == pytest.approx([1 / 3] * len(found))
    files = {name: json.loads(text) for name, text in NextGqaDataset.result_files([lost]).items()}
    assert files == {"res.json": {"v_9": {"prediction": -1, "answer": 2}}, "ground_ada.json": {"v_9": [-1.0, -1.0]}}
