"""How much faster questions are answered in batches than one by one: ClueWorld, the quickstart's model, untrained.

Seconds are those of the processor in this process, which has one thread, so that other work on the machine does not count; the
clock's are printed beside them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from cluenet.evaluate.batches import Asking, BatchEvaluator, Part, batches_of
from cluenet.evaluate.samples import Sample
from cluenet.prepared import PreparedSet
from cluenet.recipe import load
from cluenet.run import Run
from helpers.environments import ROOT
from helpers.evaluation import Silent

QUESTIONS = 600
AT_LEAST = 3.0
"""How many times faster batches must be: a ratio within one run."""
SMALL = [
    "data.train=[{name: clueworld, split: train, videos: 40}]", "data.validation=[]",
    f"data.test=[{{name: clueworld, split: test, videos: 120, max_samples: {QUESTIONS}}}]",
    "model.backbone.perception_steps=0", "model.backbone.copy_steps=0", "train.stage1.steps=0", "train.stage2.steps=0",
    "evaluate.rows=[own]", "evaluate.faithfulness=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def evaluator_and_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[BatchEvaluator, PreparedSet]:
    folder = tmp_path_factory.mktemp("bench")
    recipe = load(ROOT / "recipes" / "quickstart.yaml", [f"store={folder / 'store'}", f"runs={folder}", *SMALL])
    with Run(recipe, progress=Silent, say=lambda line: None) as run:
        model, (prepared,) = run.model, run.prepared["test"]
    return BatchEvaluator(Path(model), Asking.of(recipe)), PreparedSet(prepared)


@pytest.mark.benchmark(timer=time.process_time)
def test_batches_against_one_by_one(benchmark, evaluator_and_set, say) -> None:
    evaluator, prepared = evaluator_and_set
    batches = batches_of(prepared, 128)
    ones = [[Part(part.clip, q, q + 1)] for batch in batches for part in batch for q in range(part.first, part.last)]
    assert len(ones) == QUESTIONS

    def answered(work: Iterable[Sequence[Part]]) -> list[Sample]:
        return [sample for parts in work for sample in evaluator(prepared, parts).samples]

    started, clock = time.process_time(), time.perf_counter()
    alone = answered(ones)
    seconds, between = time.process_time() - started, time.perf_counter()
    together = benchmark.pedantic(answered, (batches,), rounds=2)
    by_clock = 2 * (between - clock) / (time.perf_counter() - between)
    for one, other in zip(alone, together, strict=True):
        assert (one["id"], one["prediction"]) == (other["id"], other["prediction"])
        assert one["option_logprobs"] == pytest.approx(other["option_logprobs"], abs=1e-4)
        assert [clue["words"] for clue in one["clues"]] == [clue["words"] for clue in other["clues"]]
    ratio = seconds / benchmark.stats.stats.min
    benchmark.extra_info.update(one_by_one_seconds=round(seconds, 2), ratio=round(ratio, 2))
    say(
        f"{QUESTIONS} questions of {len(prepared)} clips: one by one {seconds:.1f} s, in batches of 128 "
        f"{benchmark.stats.stats.min:.1f} s, {ratio:.1f} times faster ({by_clock:.1f} times by the clock)"
    )
    assert ratio >= AT_LEAST
