"""What a training step costs: against Hugging Face's Trainer on the same module and data, by part, and as examples grow.

The processor's seconds in this process, where torch has one thread, do not count other work on the machine; the clock's want an idle
one. Equal losses are asserted first. ClueWorld, the quickstart's model, untrained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cluenet.cluster import connected
from cluenet.folders import read_manifest
from cluenet.model.build import build_model
from cluenet.model.optimizers import optimizers_of
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.train.batches import TrainingBatches
from cluenet.train.group import Group
from cluenet.train.stepping import Stepper
from cluenet.train.strategies import Setup
from cluenet.train.trackers import read_lines
from cluenet.train.trainer import train_stage
from helpers.evaluation import Silent
from helpers.hf_trainer import train_with_hf
from helpers.timed_ddp import TimedDdp
from helpers.training_speed import EDGE, STAGES, Steps, World, per_step, trained

ROUNDS = 2
CLIPS = 8
NOT_SLOWER, NO_MORE_WORK, SHARED_FASTER = 1.0, 0.95, 2.5
"""How many times faster than the Trainer at least: with a question per clip by the clock, where the next batch is made meanwhile, and
by the processor, where nothing is to be gained; by the processor with six questions that share a clip."""
LOSSES = 1e-4
"""How much losses may differ, relatively: six rows add in another order than one. Measured: 1e-7."""
WAITED = 0.05
"""Of a step, for its data, with two workers on two cores."""
LINEAR = 0.15
"""How much the seconds of an example may differ among the parts of a training."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.made(tmp_path_factory.mktemp("bench"))


@dataclass(frozen=True)
class Compared:
    """The steps of every round."""

    ours: Sequence[Steps]
    theirs: Sequence[Steps]

    def seconds(self, kind: str) -> tuple[float, float]:
        """Of a step, ours and theirs: the least of the rounds, which other work on the machine disturbs least."""
        ours, theirs = (min(per_step(getattr(one, kind)) for one in every) for every in (self.ours, self.theirs))
        return ours, theirs

    def ratio(self, kind: str) -> float:
        ours, theirs = self.seconds(kind)
        return theirs / ours


def compare(benchmark: Any, world: World, stage: str, *, steps: int, questions: int, apart: bool) -> Compared:
    """Both in turn, `ROUNDS` times."""
    found = Compared([], [])

    def both() -> None:
        job = world.job(stage, steps=steps, questions=questions, clips=CLIPS)
        found.ours.append(trained(job))
        found.theirs.append(train_with_hf(job, world.folder / "hf", apart=apart))

    benchmark.pedantic(both, rounds=ROUNDS)
    for ours, theirs in zip(found.ours, found.theirs):
        assert ours.losses == pytest.approx(theirs.losses, rel=LOSSES)
    return found


def told(say: Callable[[str], None], what: str, found: Compared, examples: int) -> None:
    ours, theirs = found.seconds("processor")
    say(
        f"{what}: {examples / ours:.1f} examples per second of the processor, Trainer {examples / theirs:.1f}, "
        f"{found.ratio('processor'):.2f} times ({found.ratio('clock'):.2f} by the clock)"
    )


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("stage", STAGES)
def test_one_question_per_clip(benchmark, world: World, say, stage: str) -> None:
    found = compare(benchmark, world, stage, steps=24, questions=1, apart=False)
    told(say, f"{stage}, a question per clip", found, CLIPS)
    benchmark.extra_info["ratio"] = found.ratio("clock")
    assert found.ratio("clock") >= NOT_SLOWER
    assert found.ratio("processor") >= NO_MORE_WORK


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("stage", STAGES)
def test_six_questions_share_a_clip(benchmark, world: World, say, stage: str) -> None:
    found = compare(benchmark, world, stage, steps=13, questions=6, apart=True)
    told(say, f"{stage}, six questions per clip against six rows", found, 6 * CLIPS)
    benchmark.extra_info["ratio"] = found.ratio("processor")
    assert found.ratio("processor") >= SHARED_FASTER


@pytest.mark.benchmark(timer=time.process_time)
def test_time_is_linear_in_examples(benchmark, world: World, say) -> None:
    """A step costs the same early and late; and twice the clips cost no more than twice the time."""
    long = benchmark.pedantic(lambda: trained(world.job("stage1", steps=44, questions=6, clips=CLIPS)), rounds=1)
    early, late = per_step(long.processor[:22]), per_step(long.processor[22:])
    wide = per_step(trained(world.job("stage1", steps=14, questions=6, clips=2 * CLIPS)).processor)
    say(f"seconds of a step: early {early:.3f}, late {late:.3f}; of twice the clips {wide:.3f}")
    assert late == pytest.approx(early, rel=LINEAR)
    assert wide <= 2 * early * (1 + LINEAR)


# ----------------------------------------------------------------------------------------------- where the time goes


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("stage", STAGES)
def test_shares_of_a_step(benchmark, world: World, say, stage: str) -> None:
    torch.set_num_threads(1)
    recipe, group = world.recipe(stage, steps=24, questions=6, clips=CLIPS), Group(0, 1, "cpu")
    settings = getattr(recipe.train, stage)
    model = build_model(recipe.model, world.base, seed=0, train=recipe.train).train()
    timed = TimedDdp(
        model, Setup(recipe.train, settings, group, lambda: optimizers_of(model, settings)), time.process_time
    )
    stepper = Stepper(recipe, stage, group)
    batches = iter(
        TrainingBatches(model, [PreparedSet(world.prepared)], [1.0], settings, group, name=stage, seed=0)(0, 24)
    )

    def steps(first: int, last: int) -> None:
        timed.seconds.clear()
        for number in range(first, last):
            stepper.step(timed, timed.timed("data", lambda: next(batches)), number)

    steps(0, EDGE)
    started = time.process_time()
    benchmark.pedantic(steps, (EDGE, 24), rounds=1)
    whole = time.process_time() - started
    shares = {part: seconds / whole for part, seconds in timed.seconds.items()}
    say(
        f"{stage}: {whole / (24 - EDGE):.3f} s a step: "
        + ", ".join(f"{part} {share:.1%}" for part, share in shares.items())
    )
    assert sum(shares.values()) == pytest.approx(1, abs=0.05)


@pytest.mark.benchmark
def test_share_of_ray(benchmark, world: World, say) -> None:
    """By the clock: the loop is in another process. Of a step, and what starting and ending takes."""
    recipe, sets = (
        world.recipe("stage1", steps=40, questions=6, clips=CLIPS),
        {"train": [world.prepared], "validation": []},
    )

    def train(recipe: Recipe, *, local: bool) -> Path:
        run = world.folder / f"ray-{time.time_ns()}"
        train_stage(recipe, "stage1", run=run, base=world.base, prepared=sets, init=None, address="a" * 20,
                    progress=Silent, say=lambda line: None, local=local)  # fmt: skip
        return run

    def loop_and_rest(*, local: bool) -> tuple[float, float]:
        started = time.perf_counter()
        loop = float(read_manifest(train(recipe, local=local) / "stage1")["seconds"])
        return loop, time.perf_counter() - started - loop

    alone, before = loop_and_rest(local=True)
    with connected():
        loop, rest = benchmark.pedantic(loop_and_rest, kwargs={"local": False}, rounds=1)
        two = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": 2})})
        lines = read_lines(train(two, local=False) / "logging.jsonl")[EDGE:-EDGE]
    waited = sum(line["data_seconds"] for line in lines) / sum(line["seconds"] for line in lines)
    say(
        f"40 steps: {loop:.1f} s on Ray Train, {alone:.1f} s without, {loop / alone - 1:+.1%}; "
        f"to start and to end {rest:.1f} s, {before:.1f} s without; two workers wait {waited:.1%} of a step for their data"
    )
    assert waited <= WAITED
