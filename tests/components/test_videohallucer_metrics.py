"""VideoHallucer's measures and result files, by hand and against the paper's definitions in plain Python."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from cluenet.metrics.benchmarks import measured
from cluenet.verdicts import Verdict
from cluenet_components.datasets._videohallucer_metrics import CATEGORIES, measures, result_files
from helpers.benchmarks.videohallucer import videohallucer_row

RIGHT = {"basic": 0, "hallucination": 1}


def verdict(category: str, number: int, side: str, prediction: int | None) -> Verdict:
    row = videohallucer_row(category, number)
    meta = {"pair": f"{category}-{number:04d}", "side": side, "record": row[side], "type": row.get("type"),
            "is_yes": side == "basic"}  # fmt: skip
    return Verdict(
        f"{category}-{number:04d}-{side}", row[side]["video"], category, ("yes", "no"), RIGHT[side], prediction,
        prediction == RIGHT[side], meta=meta, asked=prediction is not None,
    )  # fmt: skip


def pairs(category: str, *predictions: tuple[int | None, int | None]) -> list[Verdict]:
    return [
        verdict(category, number, side, said)
        for number, both in enumerate(predictions)
        for side, said in zip(RIGHT, both)
    ]


def values(rows: list[Verdict]) -> dict[str, Any]:
    return {name: one["value"] for name, one in measured(measures(rows), resamples=50).items()}


def test_by_hand() -> None:
    rows = [
        *pairs("temporal", (0, 1), (0, 0), (1, 1), (None, 1)),  # right, yes to both, no to both, no reply
        *pairs("object_relation", (0, 1), (0, 0)), *pairs("interaction", (1, 0)),
    ]  # fmt: skip
    found = measured(measures(rows), resamples=50)
    assert {name: (one["value"], one["n"]) for name, one in found.items()} == {
        "accuracy": (pytest.approx((1 / 4 + 1 / 2) / 2), 2),
        "basic_accuracy": (pytest.approx((1 / 2 + 1) / 2), 2),
        "halluc_accuracy": (pytest.approx((3 / 4 + 1 / 2) / 2), 2),
        "yes_difference": (pytest.approx((6 - 6) / 12), 12),  # yes: 3 + 3; true: 4 + 2
        "false_positive_ratio": (pytest.approx(2 / 4), 12),
        "object_relation/accuracy": (0.5, 2), "object_relation/basic_accuracy": (1.0, 2),
        "object_relation/halluc_accuracy": (0.5, 2),
        "temporal/accuracy": (0.25, 4), "temporal/basic_accuracy": (0.5, 4), "temporal/halluc_accuracy": (0.75, 4),
        "interaction/accuracy": (0.0, 1), "interaction/basic_accuracy": (0.0, 1), "interaction/halluc_accuracy": (0.0, 1),
    }  # fmt: skip


@pytest.mark.parametrize(("said", "difference", "ratio"), [(0, 0.5, 1.0), (1, -0.5, 0.0)])
def test_constant_answers_have_no_pair_right_and_show_their_bias(said: int, difference: float, ratio: float) -> None:
    rows = [row for category in CATEGORIES for row in pairs(category, *[(said, said)] * 3)]
    found = values(rows)
    assert (found["accuracy"], found["yes_difference"], found["false_positive_ratio"]) == (0.0, difference, ratio)


def test_one_who_is_always_right_has_no_ratio_of_wrong_answers() -> None:
    found = values([row for category in CATEGORIES for row in pairs(category, (0, 1))])
    assert (found["accuracy"], found["yes_difference"], found["false_positive_ratio"]) == (1.0, 0.0, None)


def by_definition(files: dict[str, str]) -> dict[str, float]:
    """From the result files: words as the repository's scripts look for them, the bias as the paper defines it."""

    def says(word: str, reply: str) -> bool:
        return re.search(rf"\b({word})\b", reply, re.IGNORECASE) is not None

    found: dict[str, float] = {}
    accuracies: dict[str, list[float]] = {"accuracy": [], "basic_accuracy": [], "halluc_accuracy": []}
    yes = no_reply = total_yes = wrong = false_yes = 0
    for name in ("obj_rel", "temporal", "semantic", "fact", "nonfact"):
        records = json.loads(files[f"{name}_cluenet.json"])
        basic = [says(one["basic"]["answer"], one["basic"]["predict"]) for one in records]
        halluc = [says(one["hallucination"]["answer"], one["hallucination"]["predict"]) for one in records]
        accuracies["basic_accuracy"].append(sum(basic) / len(records))
        accuracies["halluc_accuracy"].append(sum(halluc) / len(records))
        accuracies["accuracy"].append(sum(a and b for a, b in zip(basic, halluc)) / len(records))
        for one in records:
            for side in ("basic", "hallucination"):
                reply, answer = one[side]["predict"], one[side]["answer"]
                yes += says("yes", reply)
                no_reply += not says("yes", reply) and not says("no", reply)
                total_yes += answer == "yes"
                wrong += not says(answer, reply)
                false_yes += says("yes", reply) and answer == "no"
    assert no_reply > 0, "the test must see missing replies"
    found |= {name: sum(ours) / 5 for name, ours in accuracies.items()}
    return found | {"yes_difference": (yes - total_yes) / (2 * total_yes), "false_positive_ratio": false_yes / wrong}


def test_random_replies_agree_with_the_definitions() -> None:
    rng = random.Random(0)
    rows = [
        row
        for category in CATEGORIES
        for row in pairs(category, *[tuple(rng.choice((0, 0, 1, None)) for _ in RIGHT) for _ in range(30)])
    ]
    rng.shuffle(rows)
    expected = by_definition(result_files(rows))
    assert {name: values(rows)[name] for name in expected} == pytest.approx(expected)


def test_answered_pairs_are_those_with_both_replies() -> None:
    answered = [one for one in pairs("temporal", (0, 1), (None, 1), (1, None)) if one.prediction is not None]
    found = measured(measures(answered), resamples=50)
    assert [found[f"temporal/{name}"]["n"] for name in ("accuracy", "basic_accuracy", "halluc_accuracy")] == [1, 2, 2]
    assert found["yes_difference"]["value"] == pytest.approx((1 - 2) / 4)


def test_shared_videos_are_resampled_together_and_so_are_the_two_of_a_pair() -> None:
    rows = [
        *pairs("external_factual", (0, 1)),
        *pairs("external_nonfactual", (0, 0)),
        *pairs("semantic_detail", (0, 1)),
    ]
    videos = {share.name: share.videos_U for share in measures(rows) if hasattr(share, "videos_U")}
    assert videos["external_factual/accuracy"] == videos["external_nonfactual/accuracy"] == ["external/0_a.mp4"]
    assert set(videos["yes_difference"]) == {"external/0_a.mp4", "semantic_detail/0_a.mp4"}


def test_result_files_are_the_records_with_what_was_said() -> None:
    files = result_files([*pairs("object_relation", (0, None), (1, 1)), *pairs("interaction", (0, 1))])
    assert sorted(files) == ["interaction_cluenet.json", "obj_rel_cluenet.json"]
    row = videohallucer_row("object_relation", 0)
    assert json.loads(files["obj_rel_cluenet.json"])[0] == {
        "basic": {**row["basic"], "predict": "yes"}, "hallucination": {**row["hallucination"], "predict": "none"},
        "type": "subject",
    }  # fmt: skip


def test_bad_rows_keep_their_place_with_the_fields_they_have() -> None:
    bad = [
        Verdict(f"temporal-0000-{side}", "temporal.json", "temporal", asked=False,
                meta={"pair": "temporal-0000", "side": side, "record": record, "type": None, "is_yes": side == "basic"})
        for side, record in (("basic", {"video": "x.mp4"}), ("hallucination", None))
    ]  # fmt: skip
    found = values([*bad, *pairs("temporal", (1, 1), (0, 1))[2:]])
    assert (found["temporal/accuracy"], found["temporal/basic_accuracy"]) == (0.5, 0.5)
    assert json.loads(result_files(bad)["temporal_cluenet.json"]) == [
        {"basic": {"video": "x.mp4", "predict": "none"}, "hallucination": {"predict": "none"}}
    ]


def test_a_set_cut_in_the_middle_of_a_pair_is_measured() -> None:
    found = values(pairs("temporal", (0, 1), (0, 1))[:3])
    assert (found["temporal/accuracy"], found["temporal/halluc_accuracy"]) == (1.0, 1.0)
    assert len(json.loads(result_files(pairs("temporal", (0, 1))[:1])["temporal_cluenet.json"])) == 1
