"""Which examples a report shows, and what it says of each: on hand-made samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluenet.report.examples import choose
from cluenet.report.sources import Evaluation, RunData
from cluenet.report.views import views
from helpers.samples import sample


def _evaluation(name: str, rights: str, **changes) -> Evaluation:
    lines = [
        sample(i, prediction=0 if r == "r" else 1, answer=None if r == "?" else 0, **changes)
        for i, r in enumerate(rights)
    ]
    return Evaluation(name, {}, lines, {"prepared": "/nowhere"})


def _view(*lines: dict) -> list[dict]:
    """Views of samples whose prepared set is gone."""
    evaluation = Evaluation("a", {}, list(lines), {"prepared": "/nowhere"})
    run = RunData(Path("/run"), {}, "", {}, [], [evaluation], {})
    shown = {view["id"]: view for view in views(run, choose([evaluation]))}
    return [shown[line["id"]] for line in lines]


# ----------------------------------------------------------------------------------------------------- choosing


def test_fewer_of_one_kind_are_made_up_by_the_other() -> None:
    def count(rights: str) -> tuple[int, int]:
        chosen = [item.sample["correct"] for item in choose([_evaluation("a", rights)], each=5)]
        return chosen.count(True), chosen.count(False)

    assert count("r" * 20 + "w" * 20) == (5, 5)
    assert count("r" * 20 + "ww" + "???") == (8, 2)
    assert count("r" + "w" * 20) == (1, 9)
    assert count("rrw") == (2, 1)
    assert count("?") == (0, 0)


def test_their_number_is_bounded() -> None:
    assert len(choose([_evaluation("a", "r" * 100 + "w" * 100)])) == 60


def test_every_type_and_set_has_its_turn_and_the_choice_repeats() -> None:
    sets = [_evaluation("a", "r" * 30 + "w" * 30, type="who"), _evaluation("b", "rw", type="count")]
    chosen = choose(sets, each=5)
    assert [(item.evaluation.name, item.sample["correct"]) for item in chosen].count(("b", True)) == 1
    assert [item.sample["id"] for item in chosen] == [item.sample["id"] for item in choose(sets, each=5)]
    moved = Evaluation("a", {}, sets[0].samples[::-1], {})
    assert [item.sample["id"] for item in choose([moved, sets[1]], each=5)] == [item.sample["id"] for item in chosen]


# -------------------------------------------------------------------------------------------------- what is said


def test_options_stand_in_the_order_in_which_they_were_shown() -> None:
    (view,) = _view(sample(1, prediction=2, order=[2, 0, 3, 1]))
    assert [(o["letter"], o["text"], o["index"]) for o in view["options"]] == [
        ("A", "green", 2), ("B", "red", 0), ("C", "cyan", 3), ("D", "blue", 1)
    ]  # fmt: skip
    assert [o["letter"] for o in view["options"] if o["chosen"]] == ["A"]
    assert [o["letter"] for o in view["options"] if o["right"]] == ["B"]


def test_a_clue_that_no_label_of_its_clip_says_is_hallucinated() -> None:
    clue = sample(0)["clues"][0]
    other = {**clue, "text": "green hits cyan", "words": ["<t1>", "green", "hits", "cyan"]}
    later = {**clue, "words": ["<t3>", *clue["words"][1:]]}
    elsewhere = {**sample(0)["true_clues"][0], "text": "green hits cyan", "words": ["<t9>", "green", "hits", "cyan"]}
    plain, moved, invented, dropped, told, unlabelled = _view(
        sample(1), sample(2, clues=[later], video="v1"), sample(3, clues=[clue, other], video="v2"),
        sample(4, clues=[{**other, "kept": False}], video="v3"), sample(5, clues=[other], video="v4", true_clues=[elsewhere]),
        sample(6, clues=[other], video="v5", true_clues=None),
    )  # fmt: skip
    assert [view["hallucinated"] for view in (plain, moved, invented, dropped, told, unlabelled)] == [
        False, False, True, False, False, False
    ]  # fmt: skip
    assert [one["invented"] for one in invented["clues"]] == [False, True]
    assert dropped["dropped"]


def test_labels_of_another_question_about_the_clip_count() -> None:
    other = {**sample(0)["clues"][0], "text": "green hits cyan", "words": ["<t1>", "green", "hits", "cyan"]}
    label = {**sample(0)["true_clues"][0], "text": "green hits cyan", "words": ["<t1>", "green", "hits", "cyan"]}
    first, _ = _view(sample(1, clues=[other]), sample(2, true_clues=[label]))
    assert not first["hallucinated"]


@pytest.mark.parametrize(
    ("options", "prediction", "answer", "expected"),
    [
        (["yes", "no"], 0, 1, True),
        (["Yes", "No"], 0, 1, True),
        (["yes", "no"], 1, 0, False),
        (["yes", "no"], 0, 0, False),
        (["yes", "maybe"], 0, 1, False),
    ],
)
def test_a_wrong_yes_is_hallucinated(options, prediction, answer, expected) -> None:
    lines = {"options": options, "option_logprobs": [-0.7, -0.7], "clues": []}
    (view,) = _view(sample(1, prediction=prediction, answer=answer, **lines))
    assert (view["false_yes"], view["hallucinated"]) == (expected, expected)


def test_utility_is_what_evaluation_measured() -> None:
    worth = {"filter": {"kind": "add_one", "utility": [0.75]}}
    (view,) = _view(sample(1, diagnostics=worth))
    assert (view["clues"][0]["utility"], view["clues"][0]["utility_kind"]) == (0.75, "add-one")
    assert _view(sample(1))[0]["clues"][0]["utility"] is None


def test_written_answers_have_no_probability() -> None:
    (view,) = _view(sample(1, reply="red"))
    assert {option["probability"] for option in view["options"]} == {None}


def test_without_its_clip_the_time_line_spans_the_clues_and_the_reason_is_said() -> None:
    (view,) = _view(sample(1, start_seconds=0.0))
    assert (view["start"], view["end"], view["frames"]) == (0.0, 1.0, [])
    assert "/nowhere: the folder is missing" in view["problem"]
    assert view["clues"][0]["bar"].left == 50.0


def test_what_the_model_wrote_links_its_clues() -> None:
    (view,) = _view(sample(1, generated_chain="first red hits blue . so red", chain=None))
    ((who, pieces),) = view["chains"]
    assert who == "The model reasons"
    assert [(piece.text, piece.key) for piece in pieces] == [("first ", ""), ("red hits blue", "c0"), (" . so red", "")]
