"""Inference on a device: shared prompts, pruned ones, letters, open answers; beside Hugging Face's own passes and `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cluenet.config.pruning import pruning_of
from cluenet.model.engine.engine import Answered, Engine, Question
from cluenet.model.pipeline import ClueNet
from cluenet.records import Answer, Example, Frames
from cluenet.testing.backbone_pair import BackbonePair, Clip
from cluenet.train.flops import counted
from helpers.gpu_tier import Scale, asked, clips_of, model_on, opened, seconds_of

NO_CLUES = {"clue_extractor": "none", "clue_filter": "keep_all", "reasoner": "direct"}
SLOTS = {"clue_extractor": {"name": "latent_slots", "slots": 3}, "clue_filter": "keep_all"}
MODES, KEEPS = ("two_pass", "kv_select"), (1.0, 0.5, 0.25, 0.1, 0.05)


# --------------------------------------------------------------------------------------------------- open answers


@dataclass(frozen=True)
class Written:
    """Open answers about one clip, as the engine and as `generate` write them, and seconds: of the engine, the clip being watched
    anew; of `generate` called once per question, and once with the clip in every row of a batch."""

    ours: list[str]
    theirs: list[str]
    engine: float
    separate: float
    batched: float


def writing(scale: Scale, device: str, *, questions: int, tokens: int, times: int = 3) -> Written:
    model, frames = model_on(scale, device, **NO_CLUES).eval(), clips_of(scale, 1)[0]
    vlm, examples = model.vlm, [opened(number) for number in range(questions)]
    pair = BackbonePair(vlm, vlm.hf, [Clip.of(vlm, frames, device=device)])
    inputs = [pair.ordinary_inputs(pair.clips[0], pair.text(one.question)) for one in examples]
    together, answers = _one_batch(inputs), list[str]()

    def ours() -> None:
        with Engine(model, device=device) as engine:
            found = engine.answer([Question(0, one, frames, most_tokens=tokens) for one in examples])
        answers[:] = [str(one.answer.prediction) for one in found]

    def generated(given: dict[str, Tensor]) -> Tensor:
        whole = vlm.hf.generate(**given, max_new_tokens=tokens, do_sample=False)
        return whole[:, given["input_ids"].shape[1] :]

    with torch.no_grad():
        rows = [generated(one)[0] for one in inputs]
        separate = seconds_of(lambda: [generated(one) for one in inputs], device, times=times)
        batched = seconds_of(lambda: generated(together), device, times=times)
    engine = seconds_of(ours, device, times=times)
    texts = [vlm.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
    return Written(answers, texts, engine, separate, batched)


def _one_batch(inputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of prompts of one length. Positions [3, B, L] have their batch in the middle."""
    dimension = {"position_ids": 1}
    return {name: torch.cat([one[name] for one in inputs], dim=dimension.get(name, 0)) for name in inputs[0]}


# -------------------------------------------------------------------------------------------------------- letters


@dataclass(frozen=True)
class Lettered:
    """Questions about a clip whose options are scored. `farthest`: of a log-probability from Hugging Face's own pass.

    Seconds of the first question, clip included, and of the next; operations of watching the clip."""

    farthest: float
    first: float
    following: float
    watching: int


def letters(scale: Scale, device: str, *, times: int = 5) -> Lettered:
    model, frames = model_on(scale, device, **NO_CLUES).eval(), clips_of(scale, 1)[0]
    pair = BackbonePair(model.vlm, model.vlm.hf, [Clip.of(model.vlm, frames, device=device)])
    numbers = iter(range(10**6))

    def theirs(one: Example) -> list[float]:
        text = model.collate([(frames, [one])], seed=0, shuffle_options=False).answer.packed.ids_BL[0].tolist()
        with torch.no_grad():
            logits_V = pair.ordinary_logits(pair.clips[0], text)[-1]
        return logits_V[model.letter_ids[: len(one.options)]].float().log_softmax(-1).tolist()

    prompts = model.collator.prefix([frames], [model.vlm.grid_of(frames)]).to(device)
    with model.inference():
        watching = counted(lambda: model.watch(prompts))
    with Engine(model, device=device, clip_bytes=8 << 30) as engine:

        def ask(clip: object, number: int, given: Frames | None) -> list[float]:
            (found,) = engine.answer([Question(clip, asked(number % 8), given)])
            return list(found.answer.option_logprobs)

        farthest = max(
            abs(mine - other)
            for number in range(4)
            for mine, other in zip(ask("kept", number, frames), theirs(asked(number)))
        )
        first = seconds_of(lambda: ask(("new", next(numbers)), 0, frames), device, times=times)
        following = seconds_of(lambda: ask("kept", next(numbers), None), device, times=4 * times)
    return Lettered(farthest, first, following, watching)


# ------------------------------------------------------------------------------------------------- shared prompts


@dataclass(frozen=True)
class Reused:
    """Seconds of a question about a clip, asked with others: the clip being watched for each, and once for all. `farthest`: of
    their log-probabilities from each other."""

    farthest: float
    watched_each: float
    watched_once: float


def prefix_reuse(scale: Scale, device: str) -> Reused:
    model, frames = model_on(scale, device, reasoner="clue_chain"), clips_of(scale, 1)[0]
    examples = [asked(number) for number in range(scale.questions)]
    kept: dict[bool, list[Answered]] = {}

    def ask(once: bool) -> None:
        with Engine(model, device=device) as engine:
            kept[once] = engine.answer([Question(0 if once else n, one, frames) for n, one in enumerate(examples)])

    seconds = {once: seconds_of(lambda once=once: ask(once), device) / scale.questions for once in (False, True)}
    once, each = (torch.tensor([one.answer.option_logprobs[:3] for one in kept[how]]) for how in (True, False))
    return Reused(float((once - each).abs().max()), seconds[False], seconds[True])


# --------------------------------------------------------------------------------------------------------- pruning


@dataclass(frozen=True)
class Pruned:
    """Of a question asked alone, and of one of several about the clip, which is watched anew: operations and seconds."""

    answers: list[Answer]
    operations: tuple[float, float]
    seconds: tuple[float, float]


def pruning(
    scale: Scale, device: str, *, questions: int, keeps: Sequence[float] = KEEPS, times: int = 3
) -> dict[str, Pruned]:
    """By row: `evidence`, `none` and modes with what they keep."""
    return {name: _pruned(model, scale, device, questions, times) for name, model in _rows(scale, device, keeps)}


def _rows(scale: Scale, device: str, keeps: Sequence[float]) -> Iterator[tuple[str, ClueNet]]:
    yield "evidence", model_on(scale, device, **SLOTS, reasoner="evidence").eval()
    model = model_on(scale, device, **SLOTS, reasoner="clue_chain").eval()
    yield "none", model
    for mode in MODES:
        for keep in keeps:
            yield f"{mode} {keep:.0%}", model.prune(pruning_of({"name": mode, "keep": keep}))


def _pruned(model: ClueNet, scale: Scale, device: str, questions: int, times: int) -> Pruned:
    frames, found = clips_of(scale, 1)[0], {}
    for count in (1, questions):
        examples = [asked(number) for number in range(count)]
        batch = model.collate([(frames, examples)], seed=0, shuffle_options=False).to(device)
        answers = model.predict(batch)
        operations = counted(lambda batch=batch: model.predict(batch)) / count
        found[count] = operations, seconds_of(lambda batch=batch: model.predict(batch), device, times=times) / count
    return Pruned(answers, *zip(*found.values()))  # type: ignore[arg-type]
