"""results.json by hand from a few samples, and sample lines from answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cluenet.errors import CheckpointError
from cluenet.evaluate.reliability import NO_YES_NO
from cluenet.evaluate.results import (
    NO_BOXES,
    NO_CLUES,
    NO_LABELS,
    NOT_EXTRACTED,
    available_rows,
    summarise,
)
from cluenet.evaluate.samples import View, sample_of
from cluenet.plain import rounded
from cluenet.records import Answer, Box, Clue, PredictedClue, VideoRef
from helpers.models import example
from helpers.samples import sample


def _summary(samples, lost=(), *, extracts=True, notes=None):
    return summarise(samples, lost, extracts=extracts, notes=notes or {}, resamples=200)


FOUR = [
    sample(0, video="a"),
    sample(1, video="a", prediction=2),
    sample(2, video="b", prediction=1, answer=1, type="count"),
    sample(3, video="c", answer=None),
]


def test_accuracy_leaves_out_questions_without_a_known_answer() -> None:
    found = _summary(FOUR)
    assert found["accuracy"]["overall"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["accuracy"]["overall"]["n"] == 3
    assert {kind: block["value"] for kind, block in found["accuracy"]["by_type"].items()} == {"count": 1.0, "who": 0.5}
    assert found["accuracy"]["macro"]["value"] == 0.75


def test_quarantined_rows_are_wrong_in_all_and_counted_by_reason() -> None:
    lost = [
        {"path": "x.mp4", "reason": "missing"},
        {"path": "y.mp4", "reason": "corrupt"},
        {"path": "z.mp4", "reason": "missing"},
    ]
    found = _summary(FOUR, lost)
    assert (found["accuracy"]["all"]["value"], found["accuracy"]["all"]["n"]) == (pytest.approx(2 / 6, abs=1e-6), 6)
    assert found["accuracy"]["overall"]["n"] == 3
    for block in found["rows"].values():
        expected = pytest.approx(block["overall"]["value"] * 3 / 6, abs=2e-6)
        assert (block["all"]["value"], block["all"]["n"]) == (expected, 6)
    assert found["counts"] == {
        "rows": 7, "asked": 4, "answered": 3, "quarantined": 3, "reasons": {"corrupt": 1, "missing": 2}, "videos": 3,
        "clips": 3, "labelled": 4, "unparsed": 0,
    }  # fmt: skip


def test_lost_questions_without_a_public_answer_are_counted_and_not_wrong() -> None:
    found = _summary(
        FOUR, [{"path": "x.mp4", "reason": "missing", "hidden": True}, {"path": "y.mp4", "reason": "missing"}]
    )
    assert found["accuracy"]["all"]["n"] == 4
    assert found["counts"]["quarantined"] == 2


def test_every_row_has_its_own_block() -> None:
    found = _summary(FOUR)
    assert list(found["rows"]) == ["own", "oracle", "none", "text"]
    assert found["rows"]["own"]["overall"] == found["accuracy"]["overall"]
    assert found["rows"]["oracle"]["overall"]["value"] == pytest.approx(2 / 3, abs=1e-6)  # 0 is right for q0 and q1
    assert found["rows"]["oracle"]["by_type"]["count"]["value"] == 0.0


def test_chance_and_positions() -> None:
    five = sample(4, prediction=4, options=["a", "b", "c", "d", "e"], option_logprobs=[-1.609438] * 5)
    found = _summary([*FOUR[:3], five])
    assert found["chance"] == pytest.approx((3 / 4 + 1 / 5) / 4)
    assert found["positions"] == {"predicted": [1, 1, 1, 0, 1], "right": [3, 1, 0, 0, 0]}


def test_clues_before_and_after_the_filter() -> None:
    dropped = {**FOUR[0]["clues"][0], "kept": False}
    wrong = {
        **dropped,
        "words": ["<t9>", "green", "moves", "_"],
        "start_seconds": 3.0,
        "end_seconds": 4.0,
        "pointing": False,
    }
    found = _summary([sample(0, video="a", clues=[dropped, {**wrong, "kept": True}]), sample(1, video="b")])
    assert found["clues"]["stated"]["exact"]["hits"] == 2
    assert found["clues"]["stated"]["exact"]["precision"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["clues"]["stated"]["timed"]["recall"]["value"] == 1.0
    assert found["clues"]["kept"]["exact"]["recall"]["value"] == 0.5
    assert found["clues"]["stated"]["whom"]["stated"] == 2  # the silent word is not counted
    assert found["pointing"]["rate"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["pointing"]["chance"] == 0.125
    assert found["tokens"] == {"visual": 16, "seen": 0, "clue_words": 4, "clues_stated": 1.5, "clues_kept": 1.0}


def test_questions_without_labelled_clues_are_left_out_and_those_that_need_none_are_not() -> None:
    found = _summary([sample(0), sample(1, true_clues=None), sample(2, true_clues=[])])
    exact = found["clues"]["stated"]["exact"]
    assert (exact["hits"], exact["stated"], exact["true"]) == (1, 2, 1)
    assert found["counts"]["labelled"] == 2


def test_what_cannot_be_measured_is_none_with_the_reason() -> None:
    silent = {"clues": [], "rows": {}}
    assert _summary([sample(0, **silent)], extracts=False)["notes"] == {
        "clues": NO_CLUES, "pointing": NO_CLUES, "hallucination": NO_YES_NO,
    }  # fmt: skip
    assert _summary([sample(0)], extracts=False)["notes"]["clues"] == NOT_EXTRACTED
    assert _summary([sample(0, true_clues=None)])["notes"]["clues"] == NO_LABELS
    unpointed = [{**sample(0)["clues"][0], "pointing": None, "pointing_chance": None}]
    found = _summary([sample(0, clues=unpointed)])
    assert found["notes"] == {"pointing": NO_BOXES, "hallucination": NO_YES_NO}
    assert found["pointing"] is None
    assert found["clues"] is not None


def test_no_known_answer_at_all() -> None:
    found = _summary([sample(0, answer=None)])
    assert found["accuracy"]["overall"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["chance"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("reads_clues", "labelled", "rows", "missing"),
    [
        (True, True, ["own", "oracle", "none", "text"], {}),
        (True, False, ["own", "none", "text"], {"rows.oracle": NO_LABELS}),
        (False, True, ["own"], {f"rows.{row}": NO_CLUES for row in ("oracle", "none", "text")}),
    ],
)
def test_available_rows(reads_clues: bool, labelled: bool, rows: list[str], missing: dict[str, str]) -> None:
    wanted = ("own", "oracle", "none", "text")
    assert available_rows(wanted, reads_clues=reads_clues, labelled=labelled) == (rows, missing)


def test_only_wanted_rows_and_always_own() -> None:
    assert available_rows(("text",), reads_clues=True, labelled=False) == (["own", "text"], {})


# ------------------------------------------------------------------------------------------------ sample lines

VIEW = View((2, 2, 2), (0.25, 0.75), seen=0)
STATED = PredictedClue("red hits blue", ("<t1>", "red", "hits", "_"), 0.5, 1.0, Box(0.75, 0.0, 0.0, 0.5, 0.5), 0.123456789,
                       True, (0.0, 0.0, 0.0, 0.0, 0.9, 0.1, 0.0, 0.0))  # fmt: skip


def _line(item, clues=(STATED,), logprobs=(-0.1, -3.0, -3.0)):
    answer = Answer(item.id, 0, logprobs, clues)
    return sample_of(
        item,
        "key",
        range(len(item.options)),
        {"own": answer, "none": replace(answer, prediction=1)},
        [("<t0>", "red", "hits", "blue")],
        VIEW,
    )


def test_a_sample_line() -> None:
    line = _line(example(0))
    assert line["correct"] is True
    assert line["rows"] == {"none": {"prediction": 1, "option_logprobs": [-0.1, -3.0, -3.0], "correct": False}}
    (clue,) = line["clues"]
    assert clue["gate"] == 0.123457
    assert clue["pointing"] is False  # the label's box is in the first block
    assert line["true_clues"][0]["words"] == ["<t0>", "red", "hits", "blue"]
    assert line["tokens"] == {"visual": 8, "seen": 0, "clue_words": 3}
    json.dumps(line, allow_nan=False)


def test_times_are_those_of_the_file_and_pointing_still_fits() -> None:
    clue = Clue("red hits blue", 10.0, 10.5, (Box(10.25, 0.0, 0.0, 0.5, 0.5),))
    later = replace(example(0), video=VideoRef("v.mp4", 10.0, 11.0), clues=(clue,))
    first_block = replace(STATED, attention_N=(0.9, *[0.01] * 7))
    line = _line(later, clues=(STATED, first_block))
    assert (line["clues"][0]["start_seconds"], line["clues"][0]["box"]["seconds"]) == (10.5, 10.75)
    assert [stated["pointing"] for stated in line["clues"]] == [False, True]  # 10.25 s is in the clip's first block
    assert line["true_clues"][0]["start_seconds"] == 10.0
    assert clue.shifted(-10.0).end_seconds == 0.5


def test_open_questions_and_unknown_answers() -> None:
    open_ended = replace(example(0), options=(), answer="red  square")
    line = sample_of(open_ended, "key", (), {"own": Answer("q0", "Red square", ())}, [], VIEW)
    assert (line["correct"], line["options"]) == (True, [])
    assert _line(replace(example(0), answer=None))["correct"] is None
    assert _line(replace(example(0), clues=None))["true_clues"] is None


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_numbers_that_are_none_are_an_error_that_names_the_question(bad: float) -> None:
    with pytest.raises(CheckpointError, match="question q0: the model's log-probabilities are"):
        _line(example(0), logprobs=(bad, -1.0, -1.0))


def test_rounded_reaches_everywhere_and_has_no_negative_zero() -> None:
    assert json.dumps(rounded({"a": [1.23456789, (-1e-9, True)], "b": "x", "c": None})) == (
        '{"a": [1.234568, [0.0, true]], "b": "x", "c": null}'
    )
