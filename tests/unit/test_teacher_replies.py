"""What a teacher is asked, and which of its replies are used: strict, and told why not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cluenet.errors import DataError
from cluenet.records import Clue
from cluenet_components.clue_sources._teacher_prompts import Prompts
from cluenet_components.clue_sources._teacher_replies import (
    BadReply,
    Choice,
    Reply,
    raises_answer,
    read_choice,
    read_proposal,
)
from helpers.models import example

GOOD = {
    "clues": [{"text": "the girl kneels", "start_seconds": 1, "end_seconds": 2.5, "concepts": {"who": "girl"}}],
    "chain": "She kneels, so she ties her shoe.",
}


def read(value: Any, duration: float = 4.0) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return read_proposal(text, duration_seconds=duration, max_clues=2)


def clue(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "clues": [{**GOOD["clues"][0], **changes}]}


@pytest.mark.parametrize("frame", ["{}", " {}\n", "```json\n{}\n```", "```\n{}\n```\n"])
def test_a_good_reply_is_read(frame: str) -> None:
    found = read(frame.replace("{}", json.dumps(GOOD)))
    assert found.clues == (Clue("the girl kneels", 1.0, 2.5, (), {"who": "girl"}),)
    assert found.chain == GOOD["chain"]


def test_a_time_rounded_beyond_the_end_is_cut() -> None:
    (found,) = read(clue(start_seconds=4.1, end_seconds=4.4)).clues
    assert (found.start_seconds, found.end_seconds) == (4.0, 4.0)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("", "Invalid JSON"),
        ("Here you are: " + json.dumps(GOOD), "Invalid JSON"),
        ("```json\n" + json.dumps(GOOD) + "\n``` Anything else?", "Invalid JSON"),
        (json.dumps(GOOD)[:-5], "Invalid JSON"),
        ([GOOD], "should be an object"),
        ({"clues": GOOD["clues"]}, "chain: is required"),
        ({**GOOD, "chain": ""}, "chain: String should have at least 1 character"),
        ({**GOOD, "chain": None}, "chain: Input should be a valid string"),
        ({"chain": "so"}, "clues: is required"),
        ({**GOOD, "clues": []}, "clues: Tuple should have at least 1 item"),
        ({**GOOD, "clues": None}, "clues: Input should be a valid array"),
        ({**GOOD, "clues": ["she kneels"]}, "clues.0"),
        ({**GOOD, "clues": GOOD["clues"] * 3}, "clues: 3 of them, at most 2 are asked for"),
        ({**GOOD, "answer": "B"}, "answer: unknown key"),
        ({**GOOD, "distractors": GOOD["clues"]}, "distractors: not asked for"),
        (clue(text=" "), "a clue needs text"),
        (clue(end_seconds=0.5), "ends before it starts"),
        (clue(start_seconds=None, end_seconds=None), "clues.0: start_seconds and end_seconds are required"),
        (clue(start_seconds="1"), "clues.0.start_seconds: Input should be a valid number, not '1'"),
        (clue(end_seconds=4.6), "clues.0.end_seconds: 4.6, but the clip ends at 4.00"),
        (clue(concepts={"who": "the girl"}), "concepts.who is 'the girl', must be one word"),
        (clue(concepts={"why": "girl"}), "unknown roles"),
        (clue(boxes=[{"seconds": 1, "x1": 0, "y1": 0, "x2": 1, "y2": 1}]), "clues.0.boxes: not asked for"),
    ],
)
def test_a_bad_reply_is_refused_with_the_reason(reply: Any, said: str) -> None:
    with pytest.raises(BadReply) as error:
        read(reply)
    assert said in str(error.value)


def test_probabilities_are_normalised_over_the_options() -> None:
    told = {"A": -1.2, "C": -0.3, "E": -0.01}  # E is no option, B is not told
    total = math.exp(-1.2) + math.exp(-0.3)
    found = read_choice(Reply("C", told), 3)
    assert found.option == 2
    assert found.probabilities == pytest.approx((math.exp(-1.2) / total, 0.0, math.exp(-0.3) / total))
    assert sum(found.probabilities or ()) == pytest.approx(1.0)


@pytest.mark.parametrize(("text", "option"), [("B", 1), (" (B)\n", 1), ("C.", 2), ("(A).", 0)])
def test_a_letter_alone_is_a_choice(text: str, option: int) -> None:
    assert read_choice(Reply(text), 3) == Choice(option)
    assert read_choice(Reply(text, {"Z": -0.1}), 3) == Choice(option)


@pytest.mark.parametrize("text", ["", "D", "b", "A boy", "A or B", "The answer is B", "AB"])
def test_anything_else_is_no_choice(text: str) -> None:
    with pytest.raises(BadReply, match="not one letter from A to C"):
        read_choice(Reply(text), 3)


def test_clues_help_when_the_right_answer_becomes_likelier() -> None:
    blind, likelier = Choice(0, (0.6, 0.3, 0.1)), Choice(0, (0.5, 0.4, 0.1))
    assert raises_answer(likelier, blind, 1)
    assert not raises_answer(likelier, blind, 0)
    assert not raises_answer(likelier, blind, 2)  # as likely as before


@pytest.mark.parametrize(("blind", "informed", "helps"), [(0, 1, True), (1, 1, False), (1, 0, False), (0, 2, False)])
def test_without_probabilities_a_wrong_choice_must_become_right(blind: int, informed: int, helps: bool) -> None:
    assert raises_answer(Choice(informed), Choice(blind), 1) is helps
    assert raises_answer(Choice(informed, (0.0, 1.0)), Choice(blind), 1) is helps  # one without: both are compared so


# ------------------------------------------------------------------------------------------------ prompts


def own(tmp_path: Path, text: str) -> Prompts:
    (tmp_path / "prompt.txt").write_text(text)
    return Prompts(str(tmp_path / "prompt.txt"))


def ask(prompts: Prompts, **changes: Any) -> str:
    return prompts.clues(example(**changes), duration_seconds=4.0, max_clues=3)


def test_the_shipped_prompt_asks_without_the_answer() -> None:
    said = ask(Prompts(None), question="who is it ?", options=("zebra", "ostrich"), answer=1)
    assert "who is it ?" in said
    assert "4.00 seconds" in said
    assert "1 to 3 of them" in said
    assert "zebra" not in said
    assert "ostrich" not in said
    assert "$" not in said


def test_the_form_that_the_shipped_prompt_shows_is_accepted() -> None:
    shown = next(line for line in ask(Prompts(None)).splitlines() if line.startswith("{"))
    assert read(shown).clues[0].text == "the girl kneels down"


def test_the_answer_prompt_holds_facts_question_and_options() -> None:
    item, prompts = example(question="who ?", options=("zebra", "ostrich"), answer=1), Prompts(None)
    blind, informed = prompts.answer(item, ()), prompts.answer(item, (Clue("it costs $1", 1.0, 2.0),))
    assert "Nothing is known" in blind
    assert "- from 1.00 to 2.00 s: it costs $1" in informed
    for said in (blind, informed):
        assert "Question: who ?\n(A) zebra\n(B) ostrich\n" in said


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    prompts = own(tmp_path, "$question|$options|$duration|$max_clues|$$5")
    assert ask(prompts, question="who ?", options=("a", "b"), answer=0) == "who ?|(A) a\n(B) b|4.00|3|$5"
    assert prompts.sources() != Prompts(None).sources()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("what is seen?", "has no $question"),
        ("$question $optoins", "unknown place $optoins. Did you mean 'options'? Known: duration, max_clues, "),
        ("$question $answer", "unknown place $answer"),
        ("$question costs $5", "Write $$ for a dollar sign"),
    ],
)
def test_mistakes_in_a_prompt_are_explained(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        own(tmp_path, text)
    assert f"data.clue_source.prompt: {tmp_path / 'prompt.txt'}: " in str(error.value)
    assert said in str(error.value)


def test_a_missing_prompt_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.clue_source.prompt: no such file"):
        Prompts(str(tmp_path / "promt.txt"))
