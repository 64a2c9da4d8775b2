"""Conversations to questions and back: options in texts, turns, fields that are refused, log-probabilities."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluenet.serve import chat
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import ClipFacts, ClipRef, Reply
from cluenet.serve.protocol import ChatRequest
from cluenet.serve.service import Outcome

VIDEO = {"type": "video_url", "video_url": {"url": "https://a/v.mp4"}}


def request(*messages: dict, **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": messages, **fields})


def user(content: Any) -> dict:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("why ?", "why ?", ()),
        ("why ?\nA. red\nB. blue car", "why ?", ("red", "blue car")),
        ("why ?\n(A) red\n(B) blue\nAnswer with the letter.", "why ?", ("red", "blue")),
        ("why ?\nOptions:\nA) red\nB) blue\n", "why ?", ("red", "blue")),
        ("why ? (A) red car (B) blue", "why ?", ("red car", "blue")),
        ("why ?\nA: red\nB: blue", "why ?", ("red", "blue")),
        ("why ?\n  A. a. b\n  B. c (A) d", "why ?", ("a. b", "c (A) d")),
        ("why ?\nA. only one", "why ?\nA. only one", ()),
        ("why ?\nB. red\nC. blue", "why ?\nB. red\nC. blue", ()),
        ("A. Einstein said what ?", "A. Einstein said what ?", ()),
        ("why does (A) hit (B) ?", "why does", ("hit", "?")),
    ],
)  # fmt: skip
def test_options_are_recognised(text: str, question: str, options: tuple[str, ...]) -> None:
    assert chat.options_of(text) == (question, options)


def test_earlier_turns_and_system_stand_before_the_question() -> None:
    asked = request(
        {"role": "system", "content": "be brief"}, user([VIDEO, {"type": "text", "text": "what ?"}]),
        {"role": "assistant", "content": "a car"}, user("why ?\nA. x\nB. y"),
    )  # fmt: skip
    assert chat.question_of(asked) == ("system: be brief\nuser: what ?\nassistant: a car\nuser: why ?", ("x", "y"))
    assert chat.question_of(request(user("why ?"))) == ("why ?", ())


@pytest.mark.parametrize("messages", [[user("x"), {"role": "assistant", "content": "y"}], [user("")], [user([VIDEO])]])
def test_a_conversation_must_end_with_a_question(messages: list[dict]) -> None:
    with pytest.raises(ServeError) as error:
        chat.question_of(request(*messages))
    assert (error.value.status, error.value.param) == (400, "messages")


def test_one_video_which_may_be_sent_again() -> None:
    assert chat.video_of(request(user([VIDEO]), user([VIDEO]))) == "https://a/v.mp4"
    other = {"type": "video_url", "video_url": {"url": "https://b"}}
    for messages, what in (([user("x")], "no video"), ([user([VIDEO, other])], "2 videos")):
        with pytest.raises(ServeError, match=what):
            chat.video_of(request(*messages))


@pytest.mark.parametrize(
    "fields", [{"user": "me"}, {"temperature": 0}, {"n": 1}, {"seed": 3}, {"stop": None}, {"tools": []}]
)
def test_fields_that_change_nothing_are_accepted(fields: dict) -> None:
    chat.check(request(user("x"), **fields), "m")


@pytest.mark.parametrize("fields", [{"temperature": 0.5}, {"n": 2}, {"tools": [{}]}, {"stop": ["x"]}, {"nonsense": 1}])
def test_fields_that_would_have_to_be_ignored_are_refused_by_name(fields: dict) -> None:
    with pytest.raises(ServeError) as error:
        chat.check(request(user("x"), **fields), "m")
    assert (error.value.status, error.value.param) == (400, next(iter(fields)))


def test_another_model_is_not_found_and_logprobs_need_options() -> None:
    with pytest.raises(ServeError) as error:
        chat.check(request(user("x")), "other")
    assert (error.value.status, error.value.code) == (404, "model_not_found")
    with pytest.raises(ServeError):
        chat.check(request(user("x"), top_logprobs=2), "m")
    with pytest.raises(ServeError):
        chat.check_logprobs(request(user("x"), logprobs=True), ())
    chat.check_logprobs(request(user("x"), logprobs=True), ("a", "b"))


def outcome(index: int | None, logprobs: tuple[float, ...], **changes: Any) -> Outcome:
    usage = {"visual_tokens": 10, "prompt_tokens": 15, "completion_tokens": 2, "total_tokens": 17}
    values = {
        "answer": "blue", "index": index, "option_logprobs": logprobs, "clues": (), "chain": None,
        "facts": ClipFacts((0.0,), 1.0, "decord"), "cached": {"frames": True, "clip": True}, "seconds": {}, "usage": usage,
    }  # fmt: skip
    return Outcome(Reply(**{**values, **changes}), ClipRef("k", "p", "n", 0.0, None), "sha")


def test_logprobs_are_of_the_letters_best_first() -> None:
    asked = request(user("x"), logprobs=True, top_logprobs=2)
    values = tuple(math.log(p) for p in (0.2, 0.7, 0.1))
    (token,) = chat.logprobs(asked, outcome(1, values)).content
    assert (token.token, token.bytes) == ("B", [66])
    assert token.logprob == pytest.approx(math.log(0.7))
    assert [one.token for one in token.top_logprobs] == ["B", "A"]
    assert chat.logprobs(request(user("x")), outcome(1, values)) is None


def test_replies_are_letters_or_words_and_usage_counts_what_was_kept() -> None:
    assert chat.content_of(outcome(1, (0.0, 0.0))) == "B"
    assert chat.content_of(outcome(None, ())) == "blue"
    assert chat.finish_reason(outcome(None, (), cut=True)) == "length"
    kept, fresh = chat.usage(outcome(0, ())), chat.usage(outcome(0, (), cached={"frames": True, "clip": False}))
    assert (kept.prompt_tokens_details.cached_tokens, fresh.prompt_tokens_details.cached_tokens) == (10, 0)
    assert kept.total_tokens == 17
