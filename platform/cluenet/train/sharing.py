"""Recipes that differ only in what comes after stage 1 (the filter, stage 2) train one stage 1: the second run takes over
the first one's checkpoint, under the same address; likewise the utilities of clues to the model of stage 1.

What is taken is a run's own afterwards: hard links, or copies where there are no links, so that the other run may be
deleted. Weights of a filter that stage 1 did not teach are no part of it: each run keeps those it built from its own seed.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from cluenet.folders import atomic_write_json, atomic_write_text, building, read_manifest, write_manifest
from cluenet.recipe import Recipe
from cluenet.train.trackers import read_lines

STAGE1, UTILITIES = "stage1", "utilities"


def brings_filter(recipe: Recipe, stage: str) -> bool:
    """Whether a checkpoint of `stage` holds the filter's weights to go on with: those of stage 1 only if it teaches them."""
    return stage != STAGE1 or recipe.train.stage1.losses.filter > 0


def take_over(other: Path, run: Path) -> bool:
    """Make the finished stage 1 of run folder `other` that of `run`; False when it vanished meanwhile.

    The log comes before the folder, whose manifest says that all is there. Raises StorageError.
    """
    try:
        manifest = read_manifest(other / STAGE1)
        _take_log(other, run)
        with building(run / STAGE1) as part:
            _link_tree(other / STAGE1 / manifest["best"], part / manifest["best"])
            atomic_write_json(part / "state.json", _state(manifest))
            write_manifest(part, {**manifest, "shared_from": other.name})
    except FileNotFoundError:
        return False
    return True


def take_over_utilities(other: Path, run: Path) -> bool:
    """Make the finished utilities of run folder `other` those of `run`; False when they vanished meanwhile. Raises StorageError."""
    try:
        manifest = read_manifest(other / UTILITIES)
        with building(run / UTILITIES) as part:
            for name in manifest["parts"]:
                _link(str(other / UTILITIES / name), str(part / name))
            write_manifest(part, {**manifest, "shared_from": other.name})
    except FileNotFoundError:
        return False
    return True


def _state(manifest: dict[str, object]) -> dict[str, object]:
    best = manifest["best"]
    return {"address": manifest["address"], "newest": best, "best": best, "best_value": manifest["best_value"]}


def _take_log(other: Path, run: Path) -> None:
    """The stage's curves: its lines of logging.jsonl, and its TensorBoard files."""
    lines = [line for line in read_lines(other / "logging.jsonl") if line["stage"] == STAGE1]
    rest = [line for line in read_lines(run / "logging.jsonl") if line["stage"] != STAGE1]
    atomic_write_text(run / "logging.jsonl", "".join(json.dumps(line) + "\n" for line in [*lines, *rest]))
    board = run / "tensorboard" / STAGE1
    shutil.rmtree(board, ignore_errors=True)  # of an attempt of our own
    if (other / "tensorboard" / STAGE1).is_dir():
        _link_tree(other / "tensorboard" / STAGE1, board)


def _link_tree(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, copy_function=_link)
    except shutil.Error as error:  # it collects what went wrong, as text
        if not source.is_dir():
            raise FileNotFoundError(source) from error
        raise OSError(f"{source}: cannot be copied to {target}: {error}") from error


def _link(source: str, target: str) -> None:
    """Files of a finished checkpoint never change, so two names for one do; across disks it is a copy."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)
