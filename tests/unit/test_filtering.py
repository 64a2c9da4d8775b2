"""`filter` of results.json on planted samples, against plain loops."""

from __future__ import annotations

import random
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cluenet.metrics.filtering import NO_ANSWERS, NO_GATE, UNFILTERED, auroc, filter_worth, headlines
from helpers.samples import sample

FACTS = {"kind": "leave_one_out", "delta": 0.02, "promised": None}


def judged(number: int, clues: list[tuple], *, unfiltered: int = 0, noise: dict | None = None, **changes) -> dict:
    """clues: (gate, kept, useful)."""
    base = sample(number)["clues"][0]
    stated = [{**base, "gate": gate, "kept": kept} for gate, kept, _ in clues]
    useful = [useful for _, _, useful in clues]
    record = {**FACTS, "utility": [float(one) for one in useful], "useful": useful, "unfiltered": unfiltered}
    facts = {"clues": stated, "diagnostics": {"filter": record}, "faithfulness": {"noise": noise}}
    return sample(number, **{**facts, **changes})


def planted(seed: int = 0, questions: int = 60) -> list[dict]:
    rng = random.Random(seed)
    return [
        judged(
            i,
            [(round(rng.random(), 1), rng.random() < 0.7, rng.random() < 0.4) for _ in range(rng.randrange(4))],
            video=f"v{i % 13}", clip=f"c{i % 17}", prediction=rng.randrange(4), unfiltered=rng.randrange(4),
            noise=rng.choice([None, {"through": rng.randrange(4), "unfiltered": rng.randrange(4)}]),
        )
        for i in range(questions)
    ]  # fmt: skip


def worth(samples: list[dict]) -> dict:
    block, _ = filter_worth(samples, resamples=200)
    assert block is not None
    return block


def clues_of(samples: list[dict]) -> list[tuple]:
    return [
        (clue["gate"], clue["kept"], useful)
        for one in samples
        for clue, useful in zip(one["clues"], one["diagnostics"]["filter"]["useful"])
    ]


def test_shares_of_clues_against_loops() -> None:
    samples = planted()
    block, clues = worth(samples), clues_of(samples)
    useful = [kept for _, kept, use in clues if use]
    useless = [kept for _, kept, use in clues if not use]
    assert (block["useful"]["value"], block["useful"]["n"]) == (
        pytest.approx(len(useful) / len(clues)),
        len(clues),
    )
    assert (block["useful_kept"]["value"], block["useful_kept"]["n"]) == (pytest.approx(fmean(useful)), len(useful))
    assert block["useless_dropped"]["value"] == pytest.approx(fmean(not kept for kept in useless))
    assert block["useful_kept"]["low"] < block["useful_kept"]["value"] < block["useful_kept"]["high"]


def test_by_clip_every_clip_with_a_useful_clue_counts_once() -> None:
    samples = planted()
    shares = []
    for clip in {(one["video"], one["clip"]) for one in samples}:
        here = clues_of([one for one in samples if (one["video"], one["clip"]) == clip])
        if any(use for _, _, use in here):
            shares.append(fmean(kept for _, kept, use in here if use))
    found = worth(samples)["useful_kept_by_clip"]
    assert (found["value"], found["n"]) == (pytest.approx(fmean(shares)), len(shares))


def test_clips_and_clues_are_weighed_differently() -> None:
    lost = judged(0, [(0.1, False, True)], video="a", clip="a")
    kept = judged(1, [(0.9, True, True)] * 3, video="b", clip="b")
    block = worth([lost, kept])
    assert (block["useful_kept"]["value"], block["useful_kept_by_clip"]["value"]) == (0.75, 0.5)


def test_auroc_against_all_pairs_and_scikit_learn() -> None:
    samples = planted()
    clues = clues_of(samples)
    pairs = [(a > b) + (a == b) / 2 for (a, _, x), (b, _, y) in product(clues, clues) if x and not y]
    assert worth(samples)["auroc"]["value"] == pytest.approx(fmean(pairs))
    gates, useful = np.array([c[0] for c in clues]), np.array([c[2] for c in clues], dtype=float)
    weights = np.random.default_rng(0).integers(0, 4, (5, len(clues))).astype(float)
    theirs = [roc_auc_score(useful, gates, sample_weight=row) for row in weights]
    assert auroc(gates, useful, weights) == pytest.approx(theirs)
    assert np.isnan(auroc(gates, np.ones_like(useful), weights)).all()


def test_accuracies_are_paired() -> None:
    samples = planted()
    block = worth(samples)
    own, loose = (
        [one["correct"] for one in samples],
        [one["diagnostics"]["filter"]["unfiltered"] == 0 for one in samples],
    )
    assert block["own"]["value"] == pytest.approx(fmean(own))
    assert block["unfiltered"]["value"] == pytest.approx(fmean(loose))
    assert block["gained"]["value"] == pytest.approx(fmean(own) - fmean(loose))
    noises = [one["faithfulness"]["noise"] for one in samples if one["faithfulness"]["noise"]]
    through, without = (fmean(noise[name] == 0 for noise in noises) for name in ("through", "unfiltered"))
    assert block["noise"]["gained"]["value"] == pytest.approx(through - without)
    assert (block["noise"]["own"]["value"], block["noise"]["own"]["n"]) == (pytest.approx(through), len(noises))


def test_the_same_answers_differ_by_exactly_nothing() -> None:
    samples = [judged(i, [(0.5, True, True)], video=f"v{i}", prediction=i % 2, unfiltered=i % 2) for i in range(9)]
    assert worth(samples)["gained"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 9}


def test_an_open_question_is_right_by_its_words() -> None:
    one = judged(0, [], options=[], answer="Red  square", unfiltered="red square", faithfulness=None)
    assert worth([{**one, "correct": False}, judged(1, [(0.5, True, True)], prediction=1)])["gained"]["value"] == -1.0


def test_what_is_promised_stands_beside_what_was_kept() -> None:
    one = judged(0, [(0.9, True, True), (0.2, False, False)])
    one["diagnostics"]["filter"]["promised"] = 0.9
    block = worth([one])
    assert block["promised"] == 0.9
    beside = {words: value for words, _, _, value in headlines(block)}
    assert beside["the same, mean over clips"] == 0.9
    assert "promised" not in worth(planted())


def test_what_cannot_be_measured_is_said() -> None:
    ungated = judged(0, [(None, True, True)])
    block, notes = filter_worth([ungated], resamples=100)
    assert block is not None
    assert "auroc" not in block
    assert notes == {"filter.auroc": NO_GATE}
    assert filter_worth([judged(0, [], answer=None)], resamples=100) == (None, {"filter": NO_ANSWERS})
    assert filter_worth([sample(0, diagnostics={"filter": None})], resamples=100) == (None, {"filter": UNFILTERED})
    assert "noise" not in worth([judged(0, [(0.5, True, True)])])


def test_questions_without_a_known_answer_are_left_out() -> None:
    unknown = judged(9, [(0.9, False, True)], answer=None)
    unknown["diagnostics"]["filter"] |= {"utility": None, "useful": None}
    assert (
        worth([judged(0, [(0.5, True, True)]), unknown])["useful_kept"]
        == worth([judged(0, [(0.5, True, True)])])["useful_kept"]
    )
