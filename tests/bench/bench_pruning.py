"""What pruning saves: multiplications and seconds of one question about a clip, and of eight, by mode and by share kept. A model of
20 million parameters with 512 visual tokens, `clue_chain`, letters; `evidence`, which answers without any visual token, beside it.

That keeping all gives the answers of the unpruned model is asserted first. Seconds are those of the processor in this process,
which has one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from cluenet.config.pruning import pruning_of
from cluenet.model.pipeline import ClueNet
from cluenet.records import Answer
from helpers.models import example
from helpers.sized import clip_of, model_of

FAMILY, QUESTIONS, ROUNDS = "qwen3_vl", 8, 2
KEEPS = (1.0, 0.5, 0.25, 0.1, 0.05)
MODES = ("two_pass", "kv_select")
SLOTS = {"name": "latent_slots", "slots": 3}
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""Torch counts that of GPUs only."""


def attention_flops(query, key, value, *_, **__) -> int:
    """From shapes."""
    return sdpa_flop_count(query, key, value)


def asked(model: ClueNet, questions: int) -> list[Answer]:
    """Watched anew."""
    examples = [example(number, id=f"q{number}") for number in range(questions)]
    return model.predict(model.collate([(clip_of(FAMILY), examples)], seed=0, shuffle_options=False))


def seconds(model: ClueNet, questions: int) -> float:
    """Of the processor, per question, the least of all rounds."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        asked(model, questions)
        found.append(time.process_time() - started)
    return min(found) / questions


def giga_flops(model: ClueNet, questions: int) -> float:
    """Multiplications and additions in matrix products and attention, per question."""
    with FlopCounterMode(display=False, custom_mapping={ATTENTION: attention_flops}) as counter:
        asked(model, questions)
    return counter.get_total_flops() / 1e9 / questions


def rows() -> Iterator[tuple[str, ClueNet]]:
    yield "evidence", model_of(FAMILY, clue_extractor=SLOTS, clue_filter="keep_all", reasoner="evidence")
    model = model_of(FAMILY, clue_extractor=SLOTS, clue_filter="keep_all", reasoner="clue_chain")
    yield "none", model
    for mode in MODES:
        for keep in KEEPS:
            yield f"{mode} {keep:.0%}", model.prune(pruning_of({"name": mode, "keep": keep}))


@pytest.mark.benchmark(timer=time.process_time)
def test_what_is_saved(benchmark, say) -> None:
    torch.set_num_threads(1)
    flops: dict[str, tuple[float, float]] = {}
    took: dict[str, tuple[float, float]] = {}
    wanted: list[Answer] = []
    for name, model in rows():
        found = asked(model, QUESTIONS)
        wanted = found if name == "none" else wanted
        if name.endswith("100%"):
            for one, other in zip(found, wanted, strict=True):
                assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=1e-4)
        flops[name] = giga_flops(model, 1), giga_flops(model, QUESTIONS)
        took[name] = seconds(model, 1), seconds(model, QUESTIONS)
    benchmark.pedantic(asked, (model, 1), rounds=ROUNDS)
    benchmark.extra_info.update({name: [round(value, 4) for value in values] for name, values in took.items()})
    table = [f"{FAMILY}, 512 visual tokens, per question: of one alone, and of {QUESTIONS} about the clip"]
    for name, (one, eight) in took.items():
        operations = "{:6.2f} and {:6.2f} GFLOP".format(*flops[name])
        table.append(f"  {name:>15}: {operations}, {1e3 * one:5.0f} and {1e3 * eight:5.0f} ms")
    say("\n".join(table))
    assert flops["two_pass 10%"][0] < 0.75 * flops["none"][0]
    assert took["two_pass 10%"][0] < took["none"][0]
