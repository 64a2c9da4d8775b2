"""Training stages in this process, with the real loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluenet.recipe import Recipe
from cluenet.train import validation
from cluenet.train.trackers import JsonLines
from cluenet.train.trainer import train_stage
from helpers.models import base_folder


class Quiet:
    """A progress display that remembers what it was shown."""

    shown: list[tuple[int, dict[str, float]]]
    total: int

    def __init__(self, title, total, unit):
        type(self).shown, type(self).total, self.title = [], total, title

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, done, **values):
        self.shown.append((done, values))


def train(settings: Recipe, sets, run: Path, *, stage="stage1", init=None, address="a" * 20, said=None, pause_at=None):
    return train_stage(
        settings, stage, run=run, base=base_folder(), prepared=sets, init=init, address=address, progress=Quiet,
        say=[].append if said is None else said.append, local=True, pause_at=pause_at,
    )  # fmt: skip


def interrupted(settings, sets, run, *, after, stage="stage1"):
    """Ctrl-C in the step after `after`."""
    original = JsonLines.write

    def write(self, line):
        if line["step"] > after:
            raise KeyboardInterrupt
        original(self, line)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JsonLines, "write", write)
        train(settings, sets, run, stage=stage)


def scores_of(monkeypatch, values):
    """Validation that gives these accuracies, one after another."""
    given = iter(values)
    answers = {"accuracy": 0.0, "oracle_accuracy": 0.0, "questions": 1}
    monkeypatch.setattr(
        validation.Validator, "scores", lambda self, counts: {**answers, "accuracy": next(given)}, raising=True
    )
