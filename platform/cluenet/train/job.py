"""What a worker of a stage is given, whoever starts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageJob:
    """All that a worker needs, as plain values that any process can rebuild. Paths are absolute."""

    recipe: dict[str, Any]  # Recipe.to_dict()
    stage: str  # stage1 or stage2
    run: str
    base: str  # backbone in Hugging Face layout
    init: str | None  # weights to start from; None: the base's
    train: tuple[str, ...]  # prepared sets, in the order of `data.train`
    validation: tuple[str, ...]
    address: str
    utilities: str | None = None  # folder of recorded utilities, for `filter_loss.source: offline`
    features: dict[str, str] = field(default_factory=dict)  # prepared set -> folder of its features, where it has some
    pause_at: int | None = None  # the step after which it is left with a checkpoint, as an interruption leaves it

    @property
    def folder(self) -> Path:
        return Path(self.run) / self.stage


@dataclass(frozen=True)
class Worker:
    """Which worker this is. With `world_size` > 1 the default process group of torch.distributed is up already."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    threads: int = 1
    report: Callable[[Mapping[str, Any]], None] = lambda line: None  # called with every line of logging.jsonl
    preempted: Callable[[], bool] = lambda: (
        False
    )  # whether a node is about to be taken away; all workers get one answer
