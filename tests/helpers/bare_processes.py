"""The parts of a prepared set by two processes of the standard library's pool: what Ray Data is compared with."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from cluenet.data.batches import Batch
from cluenet.data.parts import Account, PartMaker
from cluenet.recipe import Recipe

PROCESSES = 2


def with_processes(work: Sequence[Batch], recipe: Recipe, folder: Path) -> Iterator[Account]:
    """Accounts of all parts; every process gets its share at once, and starts here."""
    shares = [[batch.to_json() for batch in work[first::PROCESSES]] for first in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(parts_of, recipe.to_dict(), str(folder), share) for share in shares]
        for task in tasks:
            yield from task.result()


def parts_of(recipe: dict[str, Any], folder: str, texts: Sequence[str]) -> list[Account]:
    """In a process of a pool: its share of the batches."""
    maker = PartMaker(Recipe.from_dict(recipe), Path(folder))
    try:
        return [maker.account(Batch.from_json(text)) for text in texts]
    finally:
        maker.close()
