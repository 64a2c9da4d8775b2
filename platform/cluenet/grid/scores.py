"""How a training did until a step of it, from the log of the run that it is done in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluenet.errors import DataError
from cluenet.folders import finished
from cluenet.grid.graph import Node
from cluenet.planning import Plan

ACCURACY, QUESTIONS = "validation/accuracy", "validation/questions"


def accuracy_at(node: Node, step: int) -> float | None:
    """The last validation accuracy of a run at or before step `step` of a stage; a stage 2 that is not yet validated has that of
    stage 1. None: the stage has not come so far. Raises DataError where nothing was validated."""
    from cluenet.train.checkpoints import steps_of
    from cluenet.train.trackers import read_lines

    folder = _folder(node)
    if not finished(folder) and not any(done >= step for done in steps_of(folder)):
        return None
    log = folder.parent / "logging.jsonl"
    validated = [line for line in read_lines(log) if line.get(QUESTIONS) and _is_before(line, node.step, step)]
    if not validated:
        raise DataError(
            f"{log}: no accuracy until step {step} of {node.step}: no validation question has a known answer, so that cells cannot "
            "be ranked. Name a dataset with answers in data.validation, or remove `asha` from the grid"
        )
    return float(validated[-1][ACCURACY])


def _is_before(line: Mapping[str, Any], stage: str, step: int) -> bool:
    return line["step"] <= step if line["stage"] == stage else line["stage"] < stage


def _folder(node: Node) -> Path:
    """Of the stage, or of the same stage 1 that another run had finished before."""
    elsewhere = node.finished and node.step == "stage1" and not finished(node.folder)
    other = Plan(node.recipe).shared("stage1") if elsewhere else None
    return node.folder if other is None else other / node.step
