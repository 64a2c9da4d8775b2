"""What a question may ask of the engine besides its answer: what clues are worth, and how long a text may grow."""

from __future__ import annotations

import pytest
import torch

from cluenet.model import writing
from cluenet.model.engine.answering import Answering
from cluenet.model.engine.engine import Engine, Question
from cluenet.model.pipeline import ClueNet
from helpers import sized
from helpers.models import clip, example, tiny_model

KEEP_ALL = {"clue_filter": "keep_all"}


def model_of(**section) -> ClueNet:
    model = tiny_model(**section)
    with torch.no_grad():  # an untrained model answers the same to everything: make it differ
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.0)
    return model.eval()


def wanted(model: ClueNet, question: Question, index: int) -> list[float]:
    """log p(given answer) with all clues, minus that without each, one answer pass at a time."""
    batch = model.collate([(question.frames, [question.example])], seed=0, shuffle_options=False)
    look = model.look(batch)
    own = model.own_evidence(batch, look)
    full = model.logprobs_given(batch, look.prefix, own.embeds_BQKWD)[0, 0, index]
    worth = []
    for slot in torch.nonzero(own.present_BQK[0, 0])[:, 0].tolist():
        without = own.embeds_BQKWD.clone()
        without[0, 0, slot] = model.silence(own.ids_BQKW)[0, 0, slot]
        worth.append(float(full - model.logprobs_given(batch, look.prefix, without)[0, 0, index]))
    return worth


@pytest.mark.parametrize("section", [KEEP_ALL, {"clue_filter": {"name": "top_k", "k": 1}}])
def test_utilities_are_of_the_given_answer(section: dict) -> None:
    model = model_of(**section)
    question = Question("a", example(0, answer=None), clip(0), utilities=True)
    with Engine(model) as engine:
        answered, plain = engine.answer([question, Question("a", example(1), clip(0))])
    found = answered.utilities
    assert len(found) == len(answered.answer.clues) > 0
    assert any(abs(value) > 1e-4 for value in found), "a test without any worth shows nothing"
    assert found == pytest.approx(wanted(model, question, answered.answer.prediction), abs=1e-4)
    assert all(value == 0 for value, clue in zip(found, answered.answer.clues) if not clue.kept)
    assert plain.utilities is None


def test_utilities_of_open_answers_and_of_models_without_clues(monkeypatch: pytest.MonkeyPatch) -> None:
    open_question = Question("a", example(0, options=(), answer=None), clip(0), utilities=True)
    model = model_of(**KEEP_ALL)
    with Engine(model) as engine:
        (silent,) = engine.answer([open_question])
    assert (silent.answer.prediction, silent.utilities) == ("", None)
    monkeypatch.setattr(Answering, "_words", lambda self, tokens: "red hits blue")
    with Engine(model) as engine:
        (answered,) = engine.answer([open_question])
    assert len(answered.utilities) == len(answered.answer.clues) > 0
    with Engine(model_of(clue_extractor="none", reasoner="direct", **KEEP_ALL)) as engine:
        (answered,) = engine.answer([Question("a", example(0), clip(0), utilities=True)])
    assert answered.utilities == ()


def test_a_text_grows_no_longer_than_its_question_allows() -> None:
    model = model_of(**KEEP_ALL)
    model.vlm.tokenizer.eos_token_id = None  # nothing that it writes ends before it is cut
    heard: dict[int, list[str]] = {1: [], 5: []}
    questions = [
        Question("a", example(n, options=(), answer=None), clip(0), on_text=texts.append, most_tokens=n)
        for n, texts in heard.items()
    ]
    with Engine(model) as engine:
        answers = [one.answer.prediction for one in engine.answer(questions)]
    assert [len(texts) for texts in heard.values()] == [1, 5]  # once per token
    assert answers == [heard[1][-1], heard[5][-1]]


def test_answers_say_how_many_questions_were_let_in_together() -> None:
    model = model_of(**KEEP_ALL)
    with Engine(model, most_questions=3) as engine:
        engine._changed.acquire()  # nobody is let in until all wait
        try:
            futures = [engine.submit(Question("a", example(n), clip(0))) for n in range(4)]
        finally:
            engine._changed.release()
        assert sorted(future.result(60).together for future in futures) in ([1, 3, 3, 3], [1, 1, 2, 2])


@pytest.mark.parametrize("room", [1, 64])
def test_a_text_is_the_same_however_much_room_its_cache_has(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of different lengths, two of them about another clip, that is let in later: the cache grows, is joined and cut."""
    monkeypatch.setattr(writing, "MOST_ROOM", room)
    model = sized.model_of("qwen3_vl", clue_extractor="none", clue_filter="keep_all", reasoner="direct")
    names = [(0, 3), (0, 9), (1, 1), (1, 6)]
    questions = [
        Question(name, example(number, options=(), answer=None), sized.clip_of("qwen3_vl", name), most_tokens=most)
        for number, (name, most) in enumerate(names)
    ]
    alone = []
    for question in questions:
        with Engine(model) as engine:
            alone += [one.answer.prediction for one in engine.answer([question])]
    with Engine(model) as engine:
        first = [engine.submit(question) for question in questions[:2]]
        together = [future.result() for future in [*first, *(engine.submit(one) for one in questions[2:])]]
    assert [one.answer.prediction for one in together] == alone
    assert [len(text.split()) for text in alone] == [most for _, most in names]
    assert len({word for text in alone for word in text.split()}) > 2
