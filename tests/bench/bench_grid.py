"""How much of the time of separate runs a grid takes: 4 filters x 3 seeds of recipes/ablations/filters.yaml, a small form of it.

Seconds are those of the processor in this process, where every step runs, one after the other: so concurrency is equal and other
work on the machine does not count. Prepared sets and backbones are made before and shared by both; separate runs would make them
again, so that the ratio is, if anything, too high.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluenet.grid.account import Account, Outcome
from cluenet.grid.cells import Grid, load
from cluenet.grid.demand import Demand
from cluenet.grid.execute import Execution
from cluenet.grid.graph import Key, Node, graph_of
from cluenet.grid.workers import do_step
from cluenet.recipe import Recipe
from cluenet.run import Run
from helpers.environments import ROOT
from helpers.evaluation import Silent

AT_MOST = 0.7
"""Of the time of separate runs: a ratio within one process."""
SMALL = [
    "data.train.0.videos=60", "data.validation.0.videos=10", "data.test.0.videos=40",
    "model.backbone.perception_steps=4", "model.backbone.copy_steps=4", "model.backbone.copy_questions=32",
    "train.stage1.steps=40", "train.stage2.steps=8", "train.stage1.clips_per_batch=4", "train.stage2.clips_per_batch=4",
    "train.validation.every=40", "train.validation.max_clips=10", "evaluate.rows=[own]",
]  # fmt: skip
"""A tenth of the stages' steps, so that they stand to each other as in the grid itself."""


class InThisProcess:
    """`cluenet.grid.execute.Pool` without Ray: a step is done when it is started."""

    def __init__(self) -> None:
        self.whole = Demand(1, 0)
        self._done: list[tuple[Key, Outcome]] = []

    def start(self, node: Node, demand: Demand) -> None:
        outcome = do_step(node.recipe.to_dict(), node.key, node.evaluation, True)
        assert not outcome.error, outcome
        self._done.append((node.key, outcome))

    def ended(self) -> Iterator[tuple[Key, Outcome]]:
        while self._done:
            yield self._done.pop()

    def stop(self) -> None: ...


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """With sets and backbones made."""
    folder = tmp_path_factory.mktemp("bench")
    settings = [f"store={folder / 'store'}", f"runs={folder / 'grid'}", *SMALL]
    made = load(ROOT / "recipes" / "ablations" / "filters.yaml", settings)
    for recipe in made.cells[0].recipes.values():
        with Run(recipe, progress=Silent, say=lambda line: None, local=True) as run:
            assert run.base.is_dir()
    return made


def seconds_together(grid: Grid) -> float:
    started = time.process_time()
    execution = Execution(graph_of(grid), InThisProcess(), Account(grid.folder), retries=0)
    execution.run("bench", Silent)
    return time.process_time() - started


def seconds_apart(recipe: Recipe, runs: Path) -> float:
    """One run that finds nothing of the others."""
    started = time.process_time()
    alone = recipe.model_copy(update={"runs": str(runs)})
    with Run(alone, progress=Silent, say=lambda line: None, local=True) as run:
        assert run.results
    return time.process_time() - started


@pytest.mark.benchmark(timer=time.process_time)
def test_a_grid_against_separate_runs(benchmark, grid: Grid, tmp_path: Path, say) -> None:
    recipes = [recipe for cell in grid.cells for recipe in cell.recipes.values()]
    assert len(recipes) == 12
    apart = sum(seconds_apart(recipe, tmp_path / str(number)) for number, recipe in enumerate(recipes))
    together = benchmark.pedantic(seconds_together, (grid,), rounds=1)
    ratio = together / apart
    benchmark.extra_info.update(
        separate_seconds=round(apart, 1), grid_seconds=round(together, 1), ratio=round(ratio, 2)
    )
    say(f"12 runs apart {apart:.1f} s of the processor, as a grid {together:.1f} s: {100 * ratio:.0f} %")
    assert ratio <= AT_MOST
