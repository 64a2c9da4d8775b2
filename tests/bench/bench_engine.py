"""Eight questions about one clip: the engine beside Hugging Face's `generate`, asked once per question; and what a question
costs whose clip is known. Models of 20 million parameters, 512 visual tokens, three families.

Equal answers are asserted first. Ratios are of the processor's seconds in this process, which has one thread, so that other work
on the machine does not count; the clock's are printed beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from cluenet.model.engine.engine import Answered, Engine, Question
from cluenet.model.pipeline import ClueNet
from cluenet.records import Example
from cluenet.testing.backbone_pair import BackbonePair, Clip
from helpers.models import COLOURS, example
from helpers.sized import FAMILIES, clip_of, model_of

QUESTIONS, NEW_TOKENS, ROUNDS = 8, 8, 5
AT_LEAST = 3.5
"""How many times faster than separate calls, the clip's prompt included."""
NEXT_AT_MOST = 0.25
"""What the next question about a clip may cost, of the first."""
NO_CLUES = {"clue_extractor": "none", "clue_filter": "keep_all", "reasoner": "direct"}
VERBS = ("hits", "move", "is", "then")


def asked(number: int) -> Example:
    return example(number, question=f"which one {VERBS[number % 4]} {COLOURS[number // 4]} ?")


def opened(number: int) -> Example:
    return replace(asked(number), options=(), answer=None, clues=None, chain=None)


@dataclass(frozen=True)
class Took:
    """Medians."""

    processor: float
    clock: float


def timed(work: Callable[[], object], rounds: int = ROUNDS) -> Took:
    found = []
    for _ in range(rounds):
        started, clock = time.process_time(), time.perf_counter()
        work()
        found.append((time.process_time() - started, time.perf_counter() - clock))
    return Took(*map(statistics.median, zip(*found)))


def pair_of(model: ClueNet, family: str) -> BackbonePair:
    """The same weights, as Hugging Face runs them."""
    return BackbonePair(model.vlm, model.vlm.hf, [Clip.of(model.vlm, clip_of(family), device="cpu")])


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("family", FAMILIES)
def test_open_answers_against_generate(benchmark, family: str, say) -> None:
    torch.set_num_threads(1)
    model = model_of(family, **NO_CLUES)
    pair, frames, tokenizer = pair_of(model, family), clip_of(family), model.vlm.tokenizer
    questions = [Question(0, opened(n), frames, most_tokens=NEW_TOKENS) for n in range(QUESTIONS)]

    def ours() -> list[Answered]:
        with Engine(model) as engine:
            return engine.answer(questions)

    @torch.no_grad()
    def theirs() -> list[str]:
        texts = []
        for question in questions:
            inputs = pair.ordinary_inputs(pair.clips[0], pair.text(question.example.question))
            tokens = model.vlm.hf.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            texts.append(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
        return texts

    found, wanted = [one.answer.prediction for one in ours()], theirs()
    assert found == wanted
    assert len(set(wanted)) > 1
    separate = timed(theirs)
    clock = time.perf_counter()
    benchmark.pedantic(ours, rounds=ROUNDS)
    together = Took(benchmark.stats.stats.median, (time.perf_counter() - clock) / ROUNDS)
    ratio = separate.processor / together.processor
    benchmark.extra_info.update(generate_seconds=round(separate.processor, 3), ratio=round(ratio, 2))
    say(
        f"{family}: {QUESTIONS} questions of {found_tokens(model, family)} visual tokens, {NEW_TOKENS} new tokens: generate "
        f"{separate.processor:.2f} s, the engine {together.processor:.2f} s, {ratio:.2f} times faster "
        f"({separate.clock / together.clock:.2f} by the clock)"
    )
    assert ratio >= AT_LEAST


def found_tokens(model: ClueNet, family: str) -> int:
    return model.vlm.grid_of(clip_of(family)).tokens


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_question_about_a_clip(benchmark, family: str, say) -> None:
    """Letters, scored in one pass."""
    torch.set_num_threads(1)
    model = model_of(family, **NO_CLUES)
    pair, frames = pair_of(model, family), clip_of(family)

    def theirs(one: Example) -> list[float]:
        text = model.collate([(frames, [one])], seed=0, shuffle_options=False).answer.packed.ids_BL[0].tolist()
        with torch.no_grad():
            logits_V = pair.ordinary_logits(pair.clips[0], text)[-1]
        return logits_V[model.letter_ids[: len(one.options)]].log_softmax(-1).tolist()

    with Engine(model) as engine:
        first = []
        for number in range(ROUNDS):
            started = time.process_time()
            (found,) = engine.answer([Question(("new", number), asked(number), frames)])
            first.append(time.process_time() - started)
            assert found.answer.option_logprobs == pytest.approx(theirs(asked(number)), abs=1e-4)
        numbers = iter(range(100))
        benchmark.pedantic(
            lambda: engine.answer([Question(("new", 0), asked(next(numbers) % QUESTIONS), None)]), rounds=4 * ROUNDS
        )
    share = benchmark.stats.stats.median / statistics.median(first)
    benchmark.extra_info.update(first_seconds=round(statistics.median(first), 4), share=round(share, 3))
    say(
        f"{family}: the first question {1e3 * statistics.median(first):.0f} ms, the next "
        f"{1e3 * benchmark.stats.stats.median:.0f} ms, {share:.1%} of it"
    )
    assert share <= NEXT_AT_MOST
