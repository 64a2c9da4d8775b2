"""The inference engine: the same answers as batches give, clips watched once, questions let in while texts are written."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cluenet.errors import DataError
from cluenet.model.engine.cache import ByteCache
from cluenet.model.engine.clips import together, watch
from cluenet.model.engine.engine import ClipNotKeptError, Engine, Question
from cluenet.model.pipeline import ClueNet
from cluenet.records import Answer
from helpers.models import clip, example, tiny_model

CLIPS = {"a": clip(0), "b": clip(1, frames=7), "c": clip(2, height=48)}
KINDS = {
    "evidence": {"reasoner": "evidence"},
    "clue_chain": {"reasoner": "clue_chain"},
    "likelihood": {"reasoner": {"name": "clue_chain", "scoring": "likelihood"}},
    "direct": {"reasoner": "direct", "clue_extractor": "none", "clue_filter": "keep_all"},
    "attention": {"reasoner": "evidence", "clue_extractor": {"name": "attention", "slots": 2}, "clue_filter": "keep_all"},
    "chains": {"reasoner": {"name": "evidence", "generate_chain": True}},
    "no video": {"reasoner": "evidence", "clue_extractor": "none", "clue_filter": "keep_all"},
}  # fmt: skip


def model_of(kind: str) -> ClueNet:
    model = tiny_model(**KINDS[kind])
    with torch.no_grad():  # an untrained model answers the same to everything: make it differ
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.0)
    return model.eval()


def asked(clip_key: str, number: int, **changes) -> Question:
    return Question(clip_key, example(number, id=f"{clip_key}{number}", **changes), CLIPS[clip_key])


def alone(model: ClueNet, question: Question) -> Answer:
    """What the model says to one question in a batch of its own."""
    batch = model.collate([(question.frames, [question.example])], seed=0, shuffle_options=False)
    return model.predict(batch)[0]


def same(found: Answer, wanted: Answer) -> None:
    assert (found.example_id, found.prediction, found.chain) == (wanted.example_id, wanted.prediction, wanted.chain)
    assert found.option_logprobs == pytest.approx(wanted.option_logprobs, abs=1e-4)
    assert [(one.text, one.kept, one.start_seconds) for one in found.clues] == [
        (one.text, one.kept, one.start_seconds) for one in wanted.clues
    ]
    for mine, other in zip(found.clues, wanted.clues):
        assert mine.gate == pytest.approx(other.gate, abs=1e-4)
        assert mine.attention_N == pytest.approx(other.attention_N, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_each_question_alone(kind: str) -> None:
    model = model_of(kind)
    open_one = {"options": (), "answer": None}
    questions = [asked(key, number, **(open_one if number == 3 else {})) for number in range(4) for key in CLIPS]
    with Engine(model) as engine:
        first = engine.answer(questions)
        again = engine.answer([replace(question, frames=None) for question in reversed(questions)])
    for question, found, kept in zip(questions, first, reversed(again), strict=True):
        wanted = alone(model, question)
        same(found.answer, wanted)
        same(kept.answer, wanted)
    assert all(found.kept and found.seconds["watch"] == 0 for found in again)


def test_a_clip_is_watched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("clue_chain")
    watched: list[int] = []
    prefix = model.vlm.prefix

    def counted(prompts, **how):
        watched.append(len(prompts.ids_BP))
        return prefix(prompts, **how)

    monkeypatch.setattr(model.vlm, "prefix", counted)
    with Engine(model) as engine:
        engine.answer([asked("a", number) for number in range(5)])
        engine.answer([asked("a", 5), asked("b", 0)])
    assert sum(watched) == 2
    assert engine.clips.stats.entries == 2


def test_a_question_without_frames_needs_a_clip_that_is_kept() -> None:
    model = model_of("evidence")
    (size,) = [one.bytes for one in watch(model, [CLIPS["a"]], device="cpu")]
    with Engine(model, clip_bytes=size) as engine:  # room for one small clip
        engine.answer([asked("a", 0)])
        assert engine.answer([replace(asked("a", 1), frames=None)])[0].kept
        engine.answer([asked("b", 0)])  # larger than the budget: answered, not kept
        assert engine.answer([replace(asked("a", 2), frames=None)])[0].kept
        with pytest.raises(ClipNotKeptError, match="clip b"):
            engine.answer([replace(asked("b", 1), frames=None)])
        both = [engine.submit(one) for one in (asked("b", 2), replace(asked("a", 3), frames=None))]
        assert [one.result().answer.example_id for one in both] == ["b2", "a3"]


def test_the_bytes_of_a_kept_clip_are_those_of_its_tensors() -> None:
    model = model_of("clue_chain")
    short, long = watch(model, [CLIPS["a"], CLIPS["b"]], device="cpu")
    assert short.prefix is not None
    assert long.prefix is not None
    tokens = model.vlm.layers * 2 * short.prefix.valid_BP.shape[1]
    heads = model.vlm.hf.config.text_config
    assert sum(k.nbytes + v.nbytes for k, v in short.prefix.keys_values) == (
        tokens * heads.num_key_value_heads * heads.head_dim * 4
    )
    assert short.bytes > tokens * heads.num_key_value_heads * heads.head_dim * 4
    assert short.prompt.pixels.numel() == 0
    prompt, prefix = together([short, long])
    assert prefix is not None
    assert prefix.valid_BP.sum(1).tolist() == [short.prefix.valid_BP.shape[1], long.prefix.valid_BP.shape[1]]
    assert prompt.ids_BP.shape == prefix.valid_BP.shape


def test_one_bad_question_does_not_fail_the_others() -> None:
    model = model_of("evidence")
    too_many = tuple(f"option {number}" for number in range(30))
    with Engine(model) as engine:
        bad, good = engine.submit(asked("a", 0, options=too_many)), engine.submit(asked("a", 1))
        assert good.result().answer.example_id == "a1"
        with pytest.raises(DataError, match="letters"):
            bad.result()
        assert engine.answer([asked("a", 2)])[0].answer.example_id == "a2"


def test_a_clip_that_cannot_be_watched_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("evidence")
    grid = model.vlm.grid

    def refuse(frames, seconds):
        if len(frames) == 7:
            raise DataError("this clip is bad")
        return grid(frames, seconds)

    monkeypatch.setattr(model.vlm, "grid", refuse)
    with Engine(model) as engine:
        bad, good = engine.submit(asked("b", 0)), engine.submit(asked("a", 0))
        assert good.result().answer.example_id == "a0"
        with pytest.raises(DataError, match="bad"):
            bad.result()


# ------------------------------------------------------------------------------------------------------- texts


class Gate:
    """Holds the engine's thread inside a pass until it is opened, so that a test knows who waits and who runs."""

    def __init__(self, model: ClueNet, monkeypatch: pytest.MonkeyPatch):
        self.reached, self.opened, self.passes = threading.Event(), threading.Event(), 0
        cached_pass = model.vlm.cached_pass

        def held(*args, **kwargs):
            self.passes += 1
            if self.passes == 4:  # some tokens of the first text are written
                self.reached.set()
                self.opened.wait(20)
            return cached_pass(*args, **kwargs)

        monkeypatch.setattr(model.vlm, "cached_pass", held)


def long_winded(model: ClueNet) -> ClueNet:
    """Nothing it writes ends before it is cut."""
    model.vlm.tokenizer.eos_token_id = None
    return model


def test_new_questions_are_let_in_while_texts_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model = long_winded(model_of("clue_chain"))
    first = asked("a", 0, options=(), answer=None)
    others = [asked("b", 1), asked("a", 2, options=(), answer=None), asked("c", 3)]
    wanted = [alone(model, one) for one in (first, *others)]
    gate = Gate(model, monkeypatch)
    order: list[str] = []
    with Engine(model) as engine:
        futures = [engine.submit(first)]
        assert gate.reached.wait(20)
        futures += [engine.submit(one) for one in others]
        for future in futures:
            future.add_done_callback(lambda done: order.append(done.result().answer.example_id))
        gate.opened.set()
        found = [future.result().answer for future in futures]
    for mine, other in zip(found, wanted, strict=True):
        same(mine, other)
    assert sorted(order[:2]) == ["b1", "c3"]  # not behind the long texts
    assert order[2:] == ["a0", "a2"]


def test_an_open_answer_is_heard_while_it_grows() -> None:
    model = long_winded(model_of("evidence"))
    heard: list[str] = []
    question = replace(asked("a", 0, options=(), answer=None), on_text=heard.append)
    with Engine(model) as engine:
        (found,) = engine.answer([question])
    assert len(heard) == 32  # once per token
    assert heard[-1] == found.answer.prediction == alone(model, question).prediction
    assert all(later.startswith(earlier.rstrip("\ufffd")) for earlier, later in itertools.pairwise(heard))


def test_a_listener_that_raises_fails_its_own_question_only() -> None:
    model = long_winded(model_of("evidence"))
    open_one = {"options": (), "answer": None}
    other = asked("a", 1, **open_one)
    wanted = alone(model, other)

    def refuse(text: str) -> None:
        raise OSError("nobody listens any more")

    with Engine(model) as engine:
        bad = engine.submit(replace(asked("a", 0, **open_one), on_text=refuse))
        same(engine.submit(other).result(60).answer, wanted)
        with pytest.raises(OSError, match="nobody listens"):
            bad.result(60)
        assert engine.running


def test_a_pass_that_fails_while_texts_grow_fails_those_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = long_winded(model_of("evidence"))
    later = asked("a", 1, options=(), answer=None)
    wanted = alone(model, later)
    cached_pass, passes = model.vlm.cached_pass, itertools.count(1)

    def sometimes(*args, **kwargs):
        if next(passes) == 4:  # some tokens are written
            raise RuntimeError("out of memory")
        return cached_pass(*args, **kwargs)

    monkeypatch.setattr(model.vlm, "cached_pass", sometimes)
    with Engine(model) as engine:
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.submit(asked("a", 0, options=(), answer=None)).result(60)
        assert engine.writing == 0
        same(engine.submit(later).result(60).answer, wanted)


def test_closing_ends_what_waits_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model = long_winded(model_of("evidence"))
    gate = Gate(model, monkeypatch)
    engine = Engine(model)
    written = engine.submit(asked("a", 0, options=(), answer=None))
    assert gate.reached.wait(20)
    waiting = engine.submit(asked("a", 1))
    assert engine.waiting == 1
    threading.Timer(0.05, gate.opened.set).start()
    engine.close()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        written.result()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(asked("a", 2))


# ------------------------------------------------------------------------------------------------------- cache


def test_the_cache_keeps_what_was_used_last_within_its_budget() -> None:
    cache: ByteCache[str] = ByteCache(6, len)
    for key, value in (("x", "xx"), ("y", "yy"), ("z", "zz")):
        cache.put(key, value)
    assert cache.get("x") == "xx"
    cache.put("w", "ww")  # y was used longest ago
    assert [key in cache for key in "wxyz"] == [True, True, False, True]
    cache.put("x", "x")  # smaller than before
    assert (cache.stats.bytes, cache.stats.entries, cache.stats.evictions) == (5, 3, 1)
    cache.put("huge", "1234567")
    assert "huge" not in cache
    assert cache.get("y") is None
    assert (cache.stats.hits, cache.stats.misses) == (1, 1)
    cache.clear()
    assert (cache.stats.bytes, cache.stats.entries) == (0, 0)


def test_the_cache_is_safe_among_threads() -> None:
    cache: ByteCache[bytes] = ByteCache(1000, len)

    def work(seed: int) -> None:
        for number in range(300):
            key = (seed * 7 + number) % 40
            if cache.get(key) is None:
                cache.put(key, bytes(key))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    _all(threads, threading.Thread.start)
    _all(threads, threading.Thread.join)
    assert cache.stats.bytes == sum(key for key in range(40) if key in cache) <= 1000
    assert cache.stats.hits + cache.stats.misses == 1200


def _all(threads: list[threading.Thread], work: Callable[[threading.Thread], None]) -> None:
    for thread in threads:
        work(thread)
