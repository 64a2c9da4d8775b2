"""NExT-GQA's grounding metrics and files: by hand, and against the rule of eval_ground.py in plain Python."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.metrics.benchmarks import measured
from cluenet.model.checkpoint import load_model
from cluenet.model.pipeline import ClueNet
from cluenet.prepared import PreparedSet
from cluenet.records import Example
from cluenet.registry import register
from cluenet.verdicts import Verdict
from cluenet_components.datasets._nextgqa_metrics import overlap
from cluenet_components.datasets.nextgqa import NextGqaDataset
from helpers.evaluation import Silent, model_folder, prepared_test, recipe
from helpers.models import example, tiny_model

Span = tuple[float, float]
ONE_SLOT = {"clue_extractor": {"name": "latent_slots", "slots": 1, "heads": 2}}


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


def span_by_hand(attentions: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """In words: around the block with the most attention, as long as a block has half of it; over all clues. seconds:
    middles of the blocks, as wide as they are apart; nothing is before 0."""
    half = (seconds[1] - seconds[0]) / 2
    starts, ends = [], []
    for attention in attentions:
        size = len(attention) // len(seconds)
        shares = [sum(attention[block * size :][:size]) for block in range(len(seconds))]
        first = last = shares.index(max(shares))
        while first > 0 and shares[first - 1] >= max(shares) / 2:
            first -= 1
        while last < len(shares) - 1 and shares[last + 1] >= max(shares) / 2:
            last += 1
        starts.append(max(0.0, seconds[first] - half))
        ends.append(seconds[last] + half)
    return [min(starts), max(ends)]


def sharp_model(seed: int = 0, **section: Any) -> ClueNet:
    """An untrained model that attends to few places instead of to all of them alike."""
    model = tiny_model(seed, **section)
    with torch.no_grad():
        for weight in model.extractor.parameters():
            weight.mul_(4)
    return model


def test_the_predicted_span_is_where_the_attention_of_the_models_clues_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(number: int) -> Example:
        return replace(example(number), meta={"answer": example(number).answer, "spans": [[0.0, 0.4], [0.9, 1.0]]})

    monkeypatch.setitem(register.dataset._classes, "fake", NextGqaDataset)
    monkeypatch.setattr("helpers.evaluation.tiny_model", sharp_model)
    settings = recipe(evaluate={"bootstrap": 100, "rows": ["own"], "shuffles": 0})
    folder = model_folder(tmp_path / "model", recipe=settings, clue_filter="keep_all", **ONE_SLOT)
    prepared = prepared_test(tmp_path / "0123", recipe=settings, clips=3, make=asked)
    (results,) = evaluate(
        settings, model_folder=folder, prepared=[prepared], out=tmp_path, progress=Silent, local=True
    ).values()
    found = json.loads((tmp_path / "fake-test/official/ground_ada.json").read_text())
    network, data, expected = load_model(folder), PreparedSet(prepared), {}
    for clip in data.clip_keys:
        for one in data.examples_of(clip):
            batch = network.collate([(data.frames(clip), [one])], seed=0, shuffle_options=False)
            (answer,) = network.predict(batch)
            expected[one.id] = span_by_hand([clue.attention_N for clue in answer.clues], batch.grids[0].seconds)
    assert len({tuple(span) for span in found.values()}) > 1, "the test must see different spans"
    assert found == {key: pytest.approx(span, abs=1e-5) for key, span in expected.items()}
    rights = {one["id"]: one["correct"] for one in read_samples(tmp_path / "fake-test")}
    iops = {
        key: max(overlap((low, high), truth)[1] for truth in ((0.0, 0.4), (0.9, 1.0)))
        for key, (low, high) in expected.items()
    }
    block = results["benchmark"]["all"]
    assert block["mIoP"]["value"] == pytest.approx(sum(iops.values()) / len(iops), abs=1e-5)
    grounded = sum(rights[key] and iop >= 0.5 for key, iop in iops.items())
    assert block["Acc@GQA"]["value"] == pytest.approx(grounded / len(iops), abs=1e-5)
