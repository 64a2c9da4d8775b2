"""What `cluenet plan` does: the steps of a run, and what it will cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Group
from rich.table import Table

from cluenet.errors import CheckpointError
from cluenet.estimate import fit, report
from cluenet.estimate.accelerators import Accelerator, accelerator
from cluenet.estimate.estimate import Estimate, estimate
from cluenet.planning import Plan, Step
from cluenet.recipe import Recipe


@dataclass(frozen=True)
class Planned:
    """`advice`: empty when it fits."""

    steps: tuple[Step, ...]
    estimate: Estimate
    accelerator: Accelerator
    mfu: float
    share: float
    advice: str

    def to_dict(self) -> dict[str, Any]:
        steps = [{**asdict(step), "folder": str(step.folder)} for step in self.steps]
        cost = report.to_dict(self.estimate, self.accelerator, mfu=self.mfu, share=self.share)
        return {"steps": steps, **cost, "advice": self.advice}

    def tables(self) -> Group:
        table = Table("step", "address", "state", "what it does", "folder")
        for step in self.steps:
            table.add_row(step.name, step.address[:10], step.state, step.what, str(step.folder))
        costs = report.tables(self.estimate, self.accelerator, mfu=self.mfu, share=self.share)
        return Group(*([table] if self.steps else ()), costs, *([self.advice] if self.advice else ()))


def plan(recipe: Recipe, name: str, *, mfu: float, clips: int | None = None, questions: int | None = None) -> Planned:
    """`name`: of the accelerator. `clips`, `questions`: of training data that is not on this machine.

    There are no steps, whose addresses follow from all of it, where data or weights are missing; a note says so.
    Raises CluenetError for an unknown accelerator and what `estimate` and `planning.Plan` raise.
    """
    device, found = accelerator(name), estimate(recipe, clips=clips, questions=questions)
    share = min(1.0, recipe.train.resources.gpu) or 1.0  # a recipe for CPUs is planned for a whole accelerator
    advice = "" if fit.fits(found, device, share=share) else fit.advice(recipe, found, device, share=share)
    steps, missing = _steps(recipe, found)
    return Planned(steps, replace(found, notes=(*found.notes, *missing)), device, mfu, share, advice)


def _steps(recipe: Recipe, found: Estimate) -> tuple[tuple[Step, ...], list[str]]:
    if found.data.unread:
        return (), ["No steps are listed: their addresses follow from the data."]
    try:
        return tuple(Plan(recipe).steps()), []
    except CheckpointError as error:
        return (), [f"No steps are listed: their addresses follow from the backbone's files. {error}"]
