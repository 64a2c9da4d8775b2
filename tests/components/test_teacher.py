"""The teacher against a server on loopback: what is sent, what is kept, and everything that goes wrong on the way."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cluenet import fingerprint
from cluenet.errors import DataError
from cluenet.recipe import Recipe
from cluenet.records import Clue, Example, Frames, VideoRef
from cluenet_components.clue_sources import _teacher_endpoint
from cluenet_components.clue_sources._teacher_endpoint import few
from cluenet_components.clue_sources.teacher import FAILURES_IN_A_ROW, TeacherClues
from helpers.chat_server import (
    Answer,
    ChatServer,
    asks_for_clues,
    chat_server,
    completion,
    error,
    proposal,
    text_of,
    wise,
)
from helpers.models import clip

GOOD, USELESS = "does it move ? [clue: it points to B]", "does it move ? [clue: it is red]"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(wise) as chat:
        yield chat


def question(name: str = "q0", text: str = GOOD, **changes: Any) -> Example:
    values = {"options": ("no", "yes", "maybe"), "answer": 1, **changes}
    return Example(name, "fake", VideoRef("v.mp4", 10.0, 11.0), text, **values)


def teacher(server: ChatServer, **settings: Any) -> TeacherClues:
    return TeacherClues.Config(**{"endpoint": server.url, "model": "wise-vl", "retries": 0, **settings}).build()


def attach(source: TeacherClues, questions: list[Example], folder: Path) -> list[Example]:
    return list(source.attach_seen([(item, clip()) for item in questions], folder))


def counts(**changes: int) -> dict[str, int]:
    names = ("kept", "dropped", "unparsable", "failed", "labelled", "unjudged")
    return {**dict.fromkeys(names, 0), **changes}


# ------------------------------------------------------------------------------------------------- what is kept


def test_useful_clues_are_kept_on_the_clock_of_the_file(server: ChatServer, tmp_path: Path) -> None:
    source = teacher(server)
    (found,) = attach(source, [question()], tmp_path)
    clue = Clue("it points to B", 10.25, 10.75, (), {"who": "it", "what": "moves"})
    assert found == question(clues=(clue,), chain="it moves, so it is so")
    assert source.summary() == counts(kept=1)
    assert source.costs() == {"asked": 1, "from_cache": 0, "requests": 3}


def test_useless_clues_are_dropped_and_counted(server: ChatServer, tmp_path: Path) -> None:
    source = teacher(server)
    found = attach(source, [question("a", USELESS), question("b"), question("c", USELESS)], tmp_path)
    assert [item.clues is not None for item in found] == [False, True, False]
    assert found[0] == question("a", USELESS)
    assert source.summary() == counts(kept=1, dropped=2)


def test_all_are_kept_without_judging(server: ChatServer, tmp_path: Path) -> None:
    source = teacher(server, keep_if="all")
    open_ended = question("b", USELESS, options=(), answer="yes")
    found = attach(source, [question("a", USELESS), open_ended, question("c", answer=None)], tmp_path)
    assert all(item.clues and item.chain for item in found)
    assert source.costs()["requests"] == len(server.bodies) == 3


def test_what_is_labelled_or_cannot_be_judged_is_not_asked(server: ChatServer, tmp_path: Path) -> None:
    given = [
        question("a", clues=(Clue("from people"),), chain="so"),
        question("b", clues=()),
        question("c", answer=None),
        question("d", options=(), answer="yes"),
    ]
    source = teacher(server)
    assert attach(source, given, tmp_path) == given
    assert source.summary() == counts(labelled=2, unjudged=2)
    assert source.costs() == {"asked": 0, "from_cache": 0, "requests": 0}
    assert server.bodies == []


def test_a_chain_of_the_dataset_stays(server: ChatServer, tmp_path: Path) -> None:
    (found,) = attach(teacher(server), [question(chain="from people")], tmp_path)
    assert (found.chain, found.clues is not None) == ("from people", True)


@pytest.mark.parametrize("how", ["refused", "left out"])
def test_without_logprobs_letters_are_compared(server: ChatServer, tmp_path: Path, how: str) -> None:
    def respond(body: dict[str, Any]) -> Answer:
        if how == "refused" and "logprobs" in body:
            return error(400, "logprobs are not supported")
        return wise({**body, "logprobs": False})

    server.respond = respond
    source = teacher(server, concurrency=1)
    found = attach(source, [question("a"), question("b", USELESS), question("c", answer=0)], tmp_path)
    assert [item.clues is not None for item in found] == [True, False, False]
    assert source.summary() == counts(kept=1, dropped=2)
    assert sum("logprobs" in body for body in server.bodies) == (1 if how == "refused" else 4)


# ------------------------------------------------------------------------------------------------- what is sent


def test_frames_go_as_jpeg_after_their_times(server: ChatServer, tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, None, :, None] * 4, (5, 32, 48, 3)).copy()
    frames = Frames(smooth, np.arange(5) / 4, 1.25)
    list(teacher(server, frames=3, temperature=0.5, max_tokens=99).attach_seen([(question(), frames)], tmp_path))
    first, *others = server.bodies
    *parts, prompt = first["messages"][0]["content"]
    assert [part["text"] for part in parts[::2]] == ["Frame at 0.00 s:", "Frame at 0.50 s:", "Frame at 1.00 s:"]
    for part in parts[1::2]:
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/jpeg;base64"
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert np.abs(image.astype(int) - smooth[0]).max() <= 8
    assert GOOD in prompt["text"]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("wise-vl", 0.5, 99)
    assert "logprobs" not in first
    for body in others:
        assert isinstance(body["messages"][0]["content"], str)
        assert (body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 20, 0.5)


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [4]), (2, [0, 7]), (3, [0, 4, 7]), (8, [*range(8)]), (20, [*range(8)])]
)
def test_frames_are_spread_evenly(count: int, kept: list[int]) -> None:
    frames = clip(frames=8)
    assert few(frames, count).seconds_T.tolist() == [index / 4 for index in kept]
    assert few(frames, count).duration_seconds == frames.duration_seconds


def test_letters_are_read_where_the_reply_has_its_letter() -> None:
    tokens = [("(", {"(": -0.1, "A": -3.0}), ("B", {"B": -0.5, " B": -2.0, "A": -1.0, "the": -4.0})]
    _, _, body = completion("(B)", tokens)
    from openai.types.chat import ChatCompletion

    found = _teacher_endpoint.letters(ChatCompletion.model_validate(body).choices[0].logprobs)
    assert found == pytest.approx({"B": np.log(np.exp(-0.5) + np.exp(-2.0)), "A": -1.0})
    assert _teacher_endpoint.letters(None) is None


def test_the_key_comes_from_the_environment_and_stays_there(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    source = teacher(server, api_key_env="MY_KEY")
    attach(source, [question()], tmp_path)
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    assert "secret" not in json.dumps(source.config.to_dict())
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 3
    assert not any("secret" in file.read_text() for file in files)
    attach(teacher(server), [question("b", USELESS)], tmp_path)
    assert server.headers[-1]["authorization"] == "Bearer none"


# -------------------------------------------------------------------------------------------- bad replies, failures


def test_a_bad_reply_is_asked_again_with_what_is_wrong(server: ChatServer, tmp_path: Path) -> None:
    replies = iter(["I see a ball.", '{"clues": []}', proposal("it points to B")])
    server.respond = lambda body: completion(next(replies)) if asks_for_clues(body) else wise(body)
    source = teacher(server, retries=2)
    (found,) = attach(source, [question()], tmp_path)
    assert found.clues is not None
    assert source.summary() == counts(kept=1)
    assert source.costs() == {"asked": 1, "from_cache": 0, "requests": 5}
    asked = [text_of(body) for body in server.bodies if asks_for_clues(body)]
    assert "Invalid JSON" in asked[1]
    assert "I see a ball." in asked[1]
    assert "chain: is required" in asked[2]
    assert "I see a ball." not in asked[2]  # only the last one


def test_a_reply_that_stays_bad_is_counted_and_never_guessed(server: ChatServer, tmp_path: Path) -> None:
    server.respond = lambda body: completion("I see a ball.") if "bad" in text_of(body) else wise(body)
    source = teacher(server, retries=2)
    found = attach(source, [question("a", "bad ?"), question("b")], tmp_path)
    assert found[0] == question("a", "bad ?")
    assert source.summary() == counts(kept=1, unparsable=1)
    assert sum("bad" in text_of(body) for body in server.bodies) == 3


def test_a_judgement_that_is_no_letter_is_unparsable_too(server: ChatServer, tmp_path: Path) -> None:
    server.respond = lambda body: wise(body) if asks_for_clues(body) else completion("It depends.")
    source = teacher(server)
    (found,) = attach(source, [question()], tmp_path)
    assert found.clues is None
    assert source.summary() == counts(unparsable=1)


def once(server: ChatServer, answer: Answer) -> None:
    """The first request is answered so, all others well."""
    server.respond = lambda body: answer if len(server.bodies) == 1 else wise(body)


def test_429_waits_as_long_as_it_is_told(server: ChatServer, tmp_path: Path) -> None:
    once(server, error(429, "slow down", {"Retry-After": "1.2"}))
    source = teacher(server, retries=1)
    attach(source, [question()], tmp_path)
    assert source.summary() == counts(kept=1)
    assert 1.2 <= server.times[1] - server.times[0] < 5


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_is_tried_again(server: ChatServer, tmp_path: Path, status: int) -> None:
    once(server, error(status))
    source = teacher(server, retries=1)
    attach(source, [question()], tmp_path)
    assert source.summary() == counts(kept=1)
    assert len(server.bodies) == 4


@pytest.mark.parametrize(
    "answer",
    [
        error(500, "out of memory"),
        error(400, "the prompt is too long"),
        (200, {}, '{"id": "c", "choi'),
        (200, {"Content-Type": "text/html"}, "<html>a login page</html>"),
        (200, {}, {"id": "c", "object": "chat.completion", "choices": []}),
        (200, {}, "null"),
    ],
)
def test_one_failure_is_counted_told_and_the_others_go_on(
    server: ChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    once(server, answer)
    source = teacher(server, concurrency=1)
    found = attach(source, [question("a", GOOD + "!"), question("b")], tmp_path)
    assert [item.clues is not None for item in found] == [False, True]
    assert source.summary() == counts(kept=1, failed=1)
    assert "1 questions stay without clues" in caplog.text
    again = teacher(server)  # a failure is not remembered
    caplog.clear()
    assert attach(again, [question("a", GOOD + "!")], tmp_path)[0].clues is not None
    assert not caplog.records


def test_a_timeout_is_a_failure_of_one_question(server: ChatServer, tmp_path: Path) -> None:
    server.respond = lambda body: time.sleep(1.5) or wise(body) if "slow" in text_of(body) else wise(body)
    source = teacher(server, timeout_seconds=0.5)
    attach(source, [question("a", "slow ?"), question("b")], tmp_path)
    assert source.summary() == counts(kept=1, failed=1)


def test_failures_one_after_the_other_end_the_run(server: ChatServer, tmp_path: Path) -> None:
    server.respond = lambda body: error(500, "out of memory")
    questions = [question(f"q{number}", f"{number} ?") for number in range(FAILURES_IN_A_ROW + 5)]
    with pytest.raises(
        DataError, match=rf"failed at {FAILURES_IN_A_ROW} questions in a row; at q\d+: 500 - .*out of mem"
    ):
        attach(teacher(server, concurrency=1), questions, tmp_path)
    assert len(server.bodies) < FAILURES_IN_A_ROW + 5


# --------------------------------------------------------------------------------------------- what ends the run


def refusal(source: TeacherClues, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        attach(source, [question()], folder)
    return str(caught.value)


def test_401_names_the_variable_and_hides_the_key(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.respond = lambda body: error(401, "incorrect API key: sk-secret")
    said = refusal(teacher(server), tmp_path)
    assert "data.clue_source.api_key_env=OPENAI_API_KEY" in said
    assert server.url in said
    monkeypatch.setenv("MY_KEY", "sk-secret")
    said = refusal(teacher(server, api_key_env="MY_KEY"), tmp_path)
    assert "data.clue_source.api_key_env" in said
    assert "MY_KEY" in said
    assert "***" in said
    assert "sk-secret" not in said


def test_404_names_the_models_that_are_served(server: ChatServer, tmp_path: Path) -> None:
    server.respond = lambda body: error(404, "no such model")
    said = refusal(teacher(server, model="wise-lv"), tmp_path)
    assert "data.clue_source.model" in said
    assert "'wise-lv' (404 - no such model). Did you mean 'wise-vl'? Served there: wise-vl." in said
    said = refusal(TeacherClues.Config(endpoint=f"{server.url}/v2", model="m", retries=0).build(), tmp_path)
    assert "it usually ends in /v1" in said


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    said = refusal(TeacherClues.Config(endpoint=url, model="m", retries=0).build(), tmp_path)
    assert f"data.clue_source.endpoint: {url} cannot be reached (" in said
    assert "Start the server" in said


def test_429_for_ever_says_what_to_lower(server: ChatServer, tmp_path: Path) -> None:
    server.respond = lambda body: error(429, "quota used up", {"Retry-After": "0.01"})
    said = refusal(teacher(server, retries=2), tmp_path)
    assert "data.clue_source.requests_per_minute" in said
    assert "after 2 repetitions (429 - quota used up)" in said
    assert len(server.bodies) == 3


def test_a_missing_key_is_told_with_the_first_row(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    source = teacher(server, api_key_env="NO_SUCH_KEY")
    assert source.sources()  # finished work is found without it
    with pytest.raises(
        DataError, match=r"api_key_env: the environment variable NO_SUCH_KEY is not set. `export NO_SUCH_KEY"
    ):
        source.attach(question())
    assert teacher(server).attach(question()) == question()


def test_the_client_library_is_optional(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(DataError, match=r"pip install 'cluenet\[teacher\]'"):
        teacher(server).attach(question())


URL = "http://localhost:1/v1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ["give `endpoint` and `model`, or `path`"]),
        (
            {"endpoint": URL, "model": "m", "path": "p"},
            ["and not both", "data.clue_source.model: 'm' is about an endpoint"],
        ),
        ({"endpoint": "localhost", "model": None}, ["endpoint: 'localhost' is no URL", "model: is required"]),
        (
            {"path": "p", "requests_per_minute": 9, "temperature": 1},
            ["requests_per_minute: 9.0 is", "temperature: 1.0 is"],
        ),
    ],
)
def test_settings_that_do_not_fit_are_told_all_at_once(settings: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        TeacherClues.Config(**settings).build()
    assert all(part in str(caught.value) for part in said)
    assert "data.clue_source" in str(caught.value)


@pytest.mark.parametrize("pasted", ["sk-proj-1234", "", "a b"])
def test_a_key_is_no_name_of_a_variable(pasted: str) -> None:
    with pytest.raises(ValidationError, match="api_key_env"):
        TeacherClues.Config(api_key_env=pasted)


# ------------------------------------------------------------------------------------------------------ the address


def address(tmp_path: Path, **settings: Any) -> str:
    data = {"train": ["clueworld"], "clue_source": {"name": "teacher", "endpoint": URL, "model": "m", **settings}}
    made = Recipe.from_dict({"data": data})
    return fingerprint.prepared(made, made.data.train[0], made.data.clue_source.build().sources())


def test_how_it_is_asked_is_not_part_of_the_address(tmp_path: Path) -> None:
    elsewhere = {"endpoint": "https://other/v1", "api_key_env": "KEY", "concurrency": 9}
    assert address(tmp_path) == address(tmp_path, **elsewhere, requests_per_minute=5, timeout_seconds=9)


def test_what_is_asked_is_part_of_the_address(tmp_path: Path) -> None:
    prompt = tmp_path / "own.txt"
    prompt.write_text("$question")
    changes = [
        {}, {"model": "n"}, {"frames": 3}, {"max_clues": 2}, {"keep_if": "all"}, {"retries": 0}, {"temperature": 1.0},
        {"max_tokens": 99}, {"prompt": str(prompt)},
    ]  # fmt: skip
    found = [address(tmp_path, **change) for change in changes]
    prompt.write_text("$question!")
    found.append(address(tmp_path, **changes[-1]))
    assert len(set(found)) == len(found)


# --------------------------------------------------------------------------------------------------- cache and pace


def test_nothing_is_asked_twice(server: ChatServer, tmp_path: Path) -> None:
    questions = [question("a"), question("b", USELESS)]
    first = attach(teacher(server), questions, tmp_path)
    sent = len(server.bodies)
    server.respond = lambda body: error(500)
    again = teacher(server, concurrency=1, requests_per_minute=1)
    assert attach(again, questions, tmp_path) == first
    assert len(server.bodies) == sent == 6
    assert again.summary() == counts(kept=1, dropped=1)
    assert again.costs() == {"asked": 0, "from_cache": 2, "requests": 0}


@pytest.mark.parametrize(
    "change", ["model", "question", "frames", "times", "prompt", "temperature", "max_tokens", "damaged", "nothing"]
)
def test_a_reply_is_remembered_for_the_same_content_alone(server: ChatServer, tmp_path: Path, change: str) -> None:
    folder, settings = tmp_path / "cache", {"keep_if": "all"}
    attach(teacher(server, **settings), [question()], folder)
    frames, text = clip(), GOOD
    if change == "prompt":
        (tmp_path / "own.txt").write_text("Tell clues. $question")
        settings["prompt"] = str(tmp_path / "own.txt")
    if change in ("model", "temperature", "max_tokens"):
        settings[change] = {"model": "other", "temperature": 0.7, "max_tokens": 77}[change]
    if change == "question":
        text = GOOD + "?"
    if change == "frames":
        pixels = frames.frames_THWC.copy()
        pixels[0, 0, 0, 0] ^= 1
        frames = Frames(pixels, frames.seconds_T, frames.duration_seconds)
    if change == "times":
        frames = Frames(frames.frames_THWC, frames.seconds_T / 2, frames.duration_seconds)
    if change == "damaged":
        (file,) = (path for path in folder.rglob("*") if path.is_file())
        file.write_text('{"text": "half of')
    list(teacher(server, **settings).attach_seen([(question("another", text), frames)], folder))
    assert len(server.bodies) == (1 if change == "nothing" else 2)


def test_requests_keep_their_distance(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once(server, error(500))  # repetitions are requests too
    waits: list[float] = []
    clock = SimpleNamespace(
        monotonic=lambda: 100.0, sleep=waits.append
    )  # it stands still: a busy machine cannot disturb
    monkeypatch.setattr(_teacher_endpoint, "time", clock)
    questions = [question(f"q{number}", f"{number} ?") for number in range(5)]
    attach(teacher(server, requests_per_minute=600, keep_if="all", retries=1), questions, tmp_path)
    assert len(server.times) == 6
    assert sorted(waits) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_some_at_a_time_and_results_in_order(server: ChatServer, tmp_path: Path) -> None:
    rng = random.Random(0)

    def respond(body: dict[str, Any]) -> Answer:
        time.sleep(rng.uniform(0.01, 0.1))
        return wise(body)

    server.respond = respond
    questions = [question(f"q{number}", f"[clue: number {number}] ?") for number in range(12)]
    found = attach(teacher(server, keep_if="all", concurrency=3), questions, tmp_path)
    assert [item.id for item in found] == [f"q{number}" for number in range(12)]
    assert [item.clues[0].text for item in found if item.clues] == [f"number {number}" for number in range(12)]
    assert server.most_at_once == 3


def test_few_clips_are_taken_ahead(server: ChatServer, tmp_path: Path) -> None:
    taken = []

    def seen() -> Iterator[tuple[Example, Frames]]:
        for number in range(50):
            taken.append(number)
            yield question(f"q{number}", f"{number} ?"), clip()

    labelled = teacher(server, keep_if="all", concurrency=2).attach_seen(seen(), tmp_path)
    next(labelled)
    assert len(taken) == 4
    labelled.close()


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from cluenet.records import Frames
from cluenet_components.clue_sources.teacher import TeacherClues
from test_questions import questions
frames = Frames(np.zeros((4, 32, 48, 3), np.uint8), np.arange(4) / 4, 1.0)
source = TeacherClues.Config(endpoint=sys.argv[1], model="wise-vl", concurrency=2).build()
for item in source.attach_seen([(item, frames) for item in questions()], Path(sys.argv[2])):
    print(item.id, flush=True)
"""
QUESTIONS = """
from cluenet.records import Example, VideoRef
def questions():
    return [
        Example(f"q{n}", "fake", VideoRef("v.mp4"), f"{n} ? [clue: it points to B]", ("no", "yes", "maybe"), 1)
        for n in range(20)
    ]
"""


def test_a_killed_run_asks_only_for_what_is_missing(server: ChatServer, tmp_path: Path) -> None:
    def slowly(body: dict[str, Any]) -> Answer:
        time.sleep(0.05)
        return wise(body)

    server.respond = slowly
    (tmp_path / "test_questions.py").write_text(QUESTIONS)
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    command = [sys.executable, "-c", SCRIPT, server.url, str(tmp_path / "cache")]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for _ in range(6):
            assert process.stdout.readline(), process.stderr.read() if process.stderr else ""
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    time.sleep(0.2)  # what was on its way
    before = len(server.bodies)
    namespace: dict[str, Any] = {}
    exec(QUESTIONS, namespace)
    source = teacher(server)
    frames = Frames(np.zeros((4, 32, 48, 3), np.uint8), np.arange(4) / 4, 1.0)
    found = list(source.attach_seen([(item, frames) for item in namespace["questions"]()], tmp_path / "cache"))
    assert all(item.clues for item in found)
    assert 18 <= before < 60
    assert 60 <= len(server.bodies) <= 60 + 2  # at worst the two that were on their way when it was killed
    assert source.costs()["requests"] == len(server.bodies) - before
    assert source.costs()["from_cache"] >= 6
