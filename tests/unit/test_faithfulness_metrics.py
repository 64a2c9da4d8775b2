"""Faithfulness from probabilities: against loops over the definitions, and cases whose answer is plain."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from cluenet.metrics.faithfulness import (
    SHARES,
    Curves,
    area,
    comprehensiveness,
    curve_estimates,
    estimates,
    headlines,
    mean,
    num_top,
    sufficiency,
)

UNMOVED = Curves([0.5] * 4, [0.5] * 4, [0.5] * 4)
COPIED = Curves([1.0, 0.2, 0.2, 0.2], [0.2, 1.0, 1.0, 1.0], [0.2, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 1.0])
"""The first of three clues carries the whole answer: 1 with it, 0.2 without."""


def _drawn(rng: random.Random) -> Curves:
    clues = rng.randint(1, 6)
    whole, empty = rng.random(), rng.random()
    inner = [[rng.random() for _ in range(clues - 1)] for _ in range(3)]
    return Curves([whole, *inner[0], empty], [empty, *inner[1], whole], [empty, *inner[2], whole])


@pytest.mark.parametrize(
    ("share", "clues", "expected"),
    [(0.01, 3, 1), (0.5, 3, 2), (0.5, 2, 1), (0.2, 10, 2), (0.1, 10, 1), (0.05, 40, 2), (0.01, 1, 1), (0.5, 1, 1)],
)
def test_a_share_of_clues_is_rounded_up_and_at_least_one(share: float, clues: int, expected: int) -> None:
    assert num_top(share, clues) == expected


def test_an_answer_that_ignores_clues_has_nothing_to_lose() -> None:
    assert [comprehensiveness(UNMOVED, share) for share in SHARES] == [0] * 5
    assert [sufficiency(UNMOVED, share) for share in SHARES] == [0] * 5


def test_an_answer_that_copies_one_clue_loses_all_without_it_and_nothing_with_it_alone() -> None:
    assert [comprehensiveness(COPIED, share) for share in SHARES] == pytest.approx([0.8] * 5)
    assert [sufficiency(COPIED, share) for share in SHARES] == [0] * 5


def test_areas_by_hand() -> None:
    assert area([1.0, 0.0]) == 0.5
    assert area([0.3] * 5) == pytest.approx(0.3)
    assert area([1.0, 0.2, 0.2, 0.2]) == pytest.approx((0.6 + 0.2 + 0.2) / 3)


def test_the_block_equals_loops_over_the_definitions() -> None:
    rng = random.Random(0)
    curves = [_drawn(rng) for _ in range(40)]
    found = curve_estimates(curves, [f"v{i // 3}" for i in range(40)], resamples=200)

    for place, share in enumerate(SHARES):
        lost, kept, lost_blindly = [], [], []
        for one in curves:
            k = len(one.deletion) - 1
            m = max(1, math.ceil(share * k))
            lost.append(one.deletion[0] - one.deletion[m])
            kept.append(one.deletion[0] - one.insertion[m])
            lost_blindly.append(one.deletion[0] - one.random[k - m])
        for name, values in (("comprehensiveness", lost), ("sufficiency", kept)):
            point = found[name]["at"][place]
            assert (point["share"], point["n"]) == (share, 40)
            assert point["value"] == pytest.approx(fmean(values))
            assert point["low"] < point["value"] < point["high"]
        assert found["comprehensiveness"]["at"][place]["random"]["value"] == pytest.approx(fmean(lost_blindly))
    for name in ("comprehensiveness", "sufficiency"):
        assert found[name]["mean"]["value"] == pytest.approx(fmean(p["value"] for p in found[name]["at"]))
        assert found[name]["random"]["value"] == pytest.approx(fmean(p["random"]["value"] for p in found[name]["at"]))

    ordered = [one for one in curves if len(one.deletion) > 2]
    assert 0 < len(ordered) < 40
    for name, sign in (("deletion", -1), ("insertion", 1)):
        areas, controls = [], []
        for one in ordered:
            for curve, into in ((getattr(one, name), areas), (one.random, controls)):
                into.append(sum(curve[i] / 2 + curve[i + 1] / 2 for i in range(len(curve) - 1)) / (len(curve) - 1))
        assert found[name]["area"]["n"] == len(ordered)
        assert found[name]["area"]["value"] == pytest.approx(fmean(areas))
        assert found[name]["random"]["value"] == pytest.approx(fmean(controls))
        gains = [sign * (a - b) for a, b in zip(areas, controls)]
        assert found[name]["gain"]["value"] == pytest.approx(fmean(gains))
        for point in found[name]["at"]:
            m = point["clues"]
            assert point["value"] == pytest.approx(fmean(getattr(c, name)[min(m, len(c.random) - 1)] for c in curves))
            control = [(c.random[::-1] if name == "deletion" else c.random)[min(m, len(c.random) - 1)] for c in curves]
            assert point["random"]["value"] == pytest.approx(fmean(control))
        assert [point["clues"] for point in found[name]["at"]] == list(range(max(len(c.random) for c in curves)))


def test_the_right_order_beats_a_random_one_and_the_wrong_one_loses() -> None:
    videos = ["a", "b", "c"]
    right = curve_estimates([COPIED] * 3, videos, resamples=100)
    assert right["deletion"]["gain"]["value"] > 0
    assert right["insertion"]["gain"]["value"] > 0
    wrong = curve_estimates(
        [Curves([1.0, 1.0, 1.0, 0.2], [0.2, 0.2, 0.2, 1.0], COPIED.random)] * 3, videos, resamples=100
    )
    assert wrong["deletion"]["gain"]["value"] < 0
    assert wrong["insertion"]["gain"]["value"] < 0
    even = curve_estimates([UNMOVED] * 3, videos, resamples=100)
    assert even["deletion"]["gain"]["value"] == even["insertion"]["gain"]["value"] == 0


def test_questions_with_one_clue_have_no_order() -> None:
    found = curve_estimates([Curves([0.9, 0.1], [0.1, 0.9], [0.1, 0.9])], ["a"], resamples=100)
    assert found["deletion"]["gain"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["comprehensiveness"]["mean"]["value"] == pytest.approx(0.8)


def test_estimates_are_ratios_of_sums_and_leave_out_what_is_missing() -> None:
    videos = ["a", "a", "b", "c"]
    found = estimates(
        videos, {"mean": mean([1.0, None, 0.0, 0.5]), "part": ([1, 0, 1, None], [1, 1, 1, 1]), "of": ([1, 0, 1, 0], [2, 3, 1, 0])},
        resamples=300,
    )  # fmt: skip
    assert (found["mean"]["value"], found["mean"]["n"]) == (0.5, 3)
    assert (found["part"]["value"], found["part"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (found["of"]["value"], found["of"]["n"]) == (pytest.approx(2 / 6), 6)


def test_the_interval_resamples_videos() -> None:
    """With as many draws as there are pairs of videos, by hand: a with 4 right, b with 4 wrong."""
    found = estimates(["a"] * 4 + ["b"] * 4, {"x": mean([1.0] * 4 + [0.0] * 4)}, resamples=500)["x"]
    assert (found["low"], found["high"]) == (0.0, 1.0)  # questions as units would give about 0.13 .. 0.88


def test_headlines_name_what_was_measured_and_nothing_else() -> None:
    one = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    block = {"swap": {"flip": one, "steer": {"value": None, "low": None, "high": None, "n": 0}}, "inputs": {"own": one}}
    assert [(unit, found) for _, unit, found in headlines(block)] == [("questions", one), ("questions", one)]
    assert "flip rate" in next(iter(headlines(block)))[0]
