"""Where every step of a recipe's run leaves its folder, under which address, and what is there already. Starts nothing.

    <store>/prepared/<address>/   <store>/bases/<address>/        shared between recipes
    <store>/base_parts/<address>/ <store>/features/<address>/     likewise; the latter with `data.features: on`
    <runs>/<name>-<address>/      stage1/ utilities/ stage2/ model/ evaluation/ report.html

The run folder carries the address of stage 2, which depends on everything before it: a changed recipe gets another folder
and can never resume an older run. Settings of evaluation alone do not, so scoring again does not train again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cluenet import fingerprint, storage
from cluenet.errors import DataError
from cluenet.folders import finished, read_manifest
from cluenet.prepared import folder_of, store_folder
from cluenet.recipe import Recipe
from cluenet.registry import ComponentConfig

if TYPE_CHECKING:
    from cluenet.features import Tower

State = Literal["finished", "resumable", "new", "off"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Step:
    """One line of `cluenet plan`."""

    name: str  # prepare, pretrain, features, stage1, utilities, stage2, model, evaluate, report
    address: str
    folder: Path
    state: State
    what: str  # what it will do, in words


class Plan:
    """Addresses and folders of one recipe.

    Reading one raises DataError when a dataset cannot be read or `data.train` is empty, CheckpointError for a backbone that
    is not there.
    """

    def __init__(self, recipe: Recipe, *, evaluation: str = "evaluation"):
        """evaluation: name of the folder of scores in the run's."""
        self.recipe, self._evaluation = recipe, evaluation

    def prepared(self, split: Split) -> list[Path]:
        """Folders of a split's entries, in the recipe's order."""
        return [folder for one, _, folder in self._prepared if one == split]

    @cached_property
    def _prepared(self) -> list[tuple[Split, ComponentConfig, Path]]:
        return [
            (split, entry, folder_of(self.recipe, entry))
            for split in get_args(Split)
            for entry in getattr(self.recipe.data, split)
        ]

    @cached_property
    def base(self) -> Path:
        if not self.recipe.data.train:
            name = self.recipe.name
            raise DataError(f"{name}: data.train is empty, so nothing can be trained. Name a dataset there.")
        sources = self.recipe.model.backbone.build().sources()
        train = [folder.name for folder in self.prepared("train")]
        return store_folder(self.recipe) / "bases" / fingerprint.pretrained(self.recipe, train, sources)

    @cached_property
    def stage1(self) -> str:
        train = [folder.name for folder in self.prepared("train")]
        validation = [folder.name for folder in self.prepared("validation")]
        return fingerprint.stage1(self.recipe, self.base.name, train, validation)

    @cached_property
    def stage2(self) -> str:
        return fingerprint.stage2(self.recipe, self.stage1)

    @property
    def runs(self) -> Path:
        return Path(self.recipe.runs).expanduser().absolute()

    @cached_property
    def run(self) -> Path:
        return self.runs / f"{self.recipe.name}-{self.stage2[:10]}"

    def shared(self, step: Literal["stage1", "utilities"]) -> Path | None:
        """Another run's folder in which this step is finished under the same address, the first one by name."""
        for folder in sorted(self.run.parent.glob(f"*/{step}")):
            if folder.parent != self.run and _state(folder, self.address(step)) == "finished":
                return folder.parent
        return None

    @property
    def records_utilities(self) -> bool:
        """Whether there is a step `utilities`: stage 2 teaches a gate on the model's own clues, offline."""
        from torch import nn

        stage, model = self.recipe.train.stage2, self.recipe.model
        extractor = model.clue_extractor.component
        states_its_own = issubclass(extractor, nn.Module) or extractor.training_free
        return bool(
            stage.steps and stage.losses.filter and stage.filter_loss.source == "offline" and stage.clues == "own"
            and model.clue_filter.component.learned and model.reasoner.component.sees_clues and states_its_own
        )  # fmt: skip

    @cached_property
    def utilities(self) -> str:
        return fingerprint.utilities(self.recipe, self.stage1)

    def address(self, stage: str) -> str:
        """Of stage1, utilities or stage2."""
        return str(getattr(self, stage))

    def steps(self) -> list[Step]:
        """Every step in order, with what is on disk now."""
        features = self._features_steps() if self.recipe.data.features else ()
        return [*self._prepare_steps(), self._pretrain_step(), *features, *self._run_steps()]

    def _prepare_steps(self) -> Iterator[Step]:
        for folder, entry in self.entries().items():
            parts = len(storage.sizes(folder / "clips", "part-*"))
            state: State = "finished" if finished(folder) else "resumable" if parts else "new"
            what = f"decode the clips of {entry.name} {entry.split}"  # type: ignore[attr-defined]
            resumes = f" ({parts} parts are done)" if state == "resumable" else ""
            yield Step("prepare", folder.name, folder, state, what + resumes)

    def entries(self) -> dict[Path, ComponentConfig]:
        """Every prepared set's folder, and the first dataset entry that it is for."""
        return {folder: entry for _, entry, folder in self._prepared}

    def _pretrain_step(self) -> Step:
        state: State = "finished" if finished(self.base) else "new"
        return Step(
            "pretrain", self.base.name, self.base, state, f"make or find backbone {self.recipe.model.backbone.name}"
        )

    def _features_steps(self) -> Iterator[Step]:
        """Their addresses are known when clips and base are there."""
        from cluenet import features

        for prepared, entry in self.entries().items():
            what = f"keep what the vision tower sees in {entry.name} {entry.split}"  # type: ignore[attr-defined]
            if not (finished(self.base) and finished(prepared)):
                yield Step("features", "", store_folder(self.recipe) / "features", "new", what)
                continue
            folder = features.folder_of(self.recipe, prepared, self.tower)
            parts = len(storage.sizes(folder, "part-*"))
            state: State = "finished" if finished(folder) else "resumable" if parts else "new"
            resumes = f" ({parts} parts are done)" if state == "resumable" else ""
            yield Step("features", folder.name, folder, state, what + resumes)

    @cached_property
    def tower(self) -> Tower:
        """The vision tower of the finished base."""
        from cluenet.features import Tower

        return Tower(self.base_folder, self.recipe.model.backbone.build().loading())

    @property
    def base_folder(self) -> Path:
        """Where the finished base is: a backbone may have found it elsewhere."""
        return Path(read_manifest(self.base).get("folder", self.base))

    def _run_steps(self) -> Iterator[Step]:
        yield self._stage_step("stage1")
        if self.records_utilities:
            yield self._utilities_step()
        yield self._stage_step("stage2")
        folder = self.run / "model"
        yield Step("model", self.stage2, folder, _state(folder, self.stage2), "write the model folder")
        for prepared in dict.fromkeys(self.prepared("test")):
            yield self._evaluate_step(prepared)
        report = self.run / "report.html"
        yield Step("report", self.stage2, report, "finished" if report.is_file() else "new", "write the report")

    def _stage_step(self, name: str) -> Step:
        folder, stage = self.run / name, getattr(self.recipe.train, name)
        if not stage.steps:
            return Step(name, self.address(name), folder, "off", f"train.{name}.steps is 0")
        checkpoints = sorted(folder.glob("checkpoint-*"))
        state = _state(folder, self.address(name))
        if name == "stage1" and (other := self._shared_from("stage1", state)):
            return Step(name, self.address(name), folder, "finished", f"{stage.steps} steps, shared from {other}")
        if state != "finished" and checkpoints:
            state = "resumable"
        resumes = f", from {checkpoints[-1].name}" if state == "resumable" else ""
        return Step(name, self.address(name), folder, state, f"train {stage.steps} steps{resumes}")

    def _utilities_step(self) -> Step:
        folder, what = self.run / "utilities", "measure what every clue is worth"
        parts, state = len(list(folder.glob("part-*"))), _state(folder, self.utilities)
        if other := self._shared_from("utilities", state):
            return Step("utilities", self.utilities, folder, "finished", f"{what}, shared from {other}")
        if state != "finished" and parts:
            state = "resumable"
        resumes = f" ({parts} parts are done)" if state == "resumable" else ""
        return Step("utilities", self.utilities, folder, state, what + resumes)

    def _shared_from(self, step: Literal["stage1", "utilities"], state: State) -> str | None:
        """Name of the run whose finished step this one has taken over, or would."""
        if state == "finished":
            return read_manifest(self.run / step).get("shared_from")
        other = self.shared(step)
        return None if other is None else other.name

    def _evaluate_step(self, prepared: Path) -> Step:
        address, out = fingerprint.evaluation(self.recipe, self.stage2, prepared.name), self.run / self._evaluation
        done = next((folder for folder in sorted(out.glob("*")) if _state(folder, address) == "finished"), None)
        entry = self.entries()[prepared]
        what = f"score {entry.name} {entry.split}"  # type: ignore[attr-defined]
        return Step("evaluate", address, done or out, "finished" if done else "new", what)


def _state(folder: Path, address: str) -> State:
    return "finished" if finished(folder) and read_manifest(folder).get("address") == address else "new"
