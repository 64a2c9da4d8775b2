"""What the folder of a run says about it: every setting, what each step took, and, once it is complete, what came out.

    recipe.yaml      every setting, defaults included
    steps.json       seconds and attempts of each step, while the run is under way
    manifest.json    the same with addresses, accuracies and versions; written when the run is complete

Nothing is written before a step is under way.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluenet.folders import atomic_write_json, atomic_write_text, finished, read_manifest, versions, write_manifest
from cluenet.overlap import Overlap
from cluenet.planning import Plan

STEPS = ("prepare", "pretrain", "features", "stage1", "utilities", "stage2", "model", "evaluate", "report")


class RunAccount:
    """Of the run that a plan leads to."""

    def __init__(self, plan: Plan):
        self.plan = plan

    @property
    def path(self) -> Path:
        """Raises DataError without training data: a recipe that only scores other models has no run."""
        return self.plan.run

    def write_recipe(self) -> None:
        """`recipe.yaml`, unless it is there as it should be."""
        whole = self.plan.recipe.model_copy(update={"extends": None})
        text = f"# Every setting of this run, defaults included: cluenet run THIS_FILE repeats it.\n{whole.to_yaml()}"
        path = self.path / "recipe.yaml"
        if not path.is_file() or path.read_text() != text:
            atomic_write_text(path, text)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the block's seconds to the account, also when it ends in an error or with Ctrl-C."""
        started = time.monotonic()
        try:
            yield
        finally:
            known = self._spent()
            seconds = known[step]["seconds"] + time.monotonic() - started
            known[step] = {"seconds": round(seconds, 2), "attempts": known[step]["attempts"] + 1}
            atomic_write_json(self.path / "steps.json", known)

    def steps(self) -> dict[str, dict[str, Any]]:
        """Seconds of each step of this run, over all attempts; a step that was found finished took none. Of the stages also
        the operations that their training took, wherever it ran, and the run that a shared one comes from."""
        return {step: {**spent, **self._stage_facts(step)} for step, spent in self._spent().items()}

    def finish(
        self, prepared: Mapping[str, Sequence[Path]], results: Mapping[str, dict[str, Any]], overlaps: Sequence[Overlap]
    ) -> Path:
        """`manifest.json`: the run is complete. prepared: by split. results: results.json by test set."""
        plan = self.plan
        return write_manifest(self.path, {
            "name": plan.recipe.name, "address": plan.stage2,
            "addresses": {
                **{split: [path.name for path in paths] for split, paths in prepared.items()},
                "pretrain": plan.base.name, "stage1": plan.stage1, "stage2": plan.stage2,
            },
            "steps": self.steps(), "evaluation": {name: result["accuracy"]["overall"] for name, result in results.items()},
            "overlaps": [one.to_dict() for one in overlaps],
            "versions": {"python": platform.python_version(), **versions("ray", "torch", "transformers", "numpy", "av")},
        })  # fmt: skip

    def _spent(self) -> dict[str, dict[str, Any]]:
        try:
            known = json.loads((self.path / "steps.json").read_text())
        except FileNotFoundError:
            known = {}
        return {step: known.get(step, {"seconds": 0.0, "attempts": 0}) for step in STEPS}

    def _stage_facts(self, step: str) -> dict[str, Any]:
        folder = self.path / step
        manifest = read_manifest(folder) if step.startswith("stage") and finished(folder) else {}
        return {name: manifest[name] for name in ("flops_per_step", "flops", "shared_from") if name in manifest}
