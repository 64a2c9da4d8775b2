"""A recipe: one YAML file that says everything about a run. `load` reads it, with `extends:` and `key.path=value`
overrides, and reports every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from cluenet import storage
from cluenet.config.base import Section
from cluenet.config.data import DataSection
from cluenet.config.evaluate import EvaluateSection
from cluenet.config.model import ModelSection
from cluenet.config.serve import ServeSection
from cluenet.config.strategy import DeepSpeed, Fsdp
from cluenet.config.train import Stage, TrainSection
from cluenet.errors import Problem, RecipeError
from cluenet.plugins import load_components
from cluenet.problems import problems_of
from cluenet.steps import setting


class Recipe(Section):
    version: Literal[1] = setting(1, "none", description="Version of the recipe format.")
    name: str = setting("run", "none", description="First part of the run folder's name.", pattern=r"^[\w.-]+$")
    seed: int = setting(0, "pretrain", description="Seed of everything random.", ge=0)
    extends: str | None = setting(
        None, "none", description="Another recipe, relative to this file: maps merge deeply, lists are replaced."
    )
    plugins: tuple[str, ...] = setting((), "none", description="Modules to import besides installed entry points.")
    store: str = setting(
        "~/.cache/cluenet", "none",
        description="Where prepared data and bases are shared: a folder, or a URI such as s3://bucket/folder.",
    )  # fmt: skip
    mirror: str = setting(
        "~/.cache/cluenet/mirrors", "none",
        description="Folder for copies of a `store` that is a URI, on every machine at the same path.",
    )  # fmt: skip
    runs: str = setting("runs", "none", description="Folder in which run folders are made.")
    data: DataSection = Field(default_factory=DataSection, description="Questions, videos, frames, clues.")
    model: ModelSection = Field(default_factory=ModelSection, description="Backbone and components.")
    train: TrainSection = Field(default_factory=TrainSection, description="Optimisation.")
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection, description="Scoring.")
    serve: ServeSection = Field(default_factory=ServeSection, description="The endpoint.")

    def to_dict(self) -> dict[str, Any]:
        """Every setting with its value; `Recipe.from_dict` is the inverse."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, file: str = "recipe") -> Recipe:
        """Raises RecipeError with every problem, PluginError when a plug-in cannot be imported."""
        plugins = values.get("plugins") or ()
        load_components(plugins if isinstance(plugins, (list, tuple)) else ())
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(file, problems_of(error, cls)) from None
        if problems := list(_misfits(recipe)):
            raise RecipeError(file, problems)
        return recipe


def _misfits(recipe: Recipe) -> Iterator[Problem]:
    """Settings of a stage that cannot do anything beside those of other sections."""
    train, reasoner = recipe.train, recipe.model.reasoner
    yield from _folder_misfits(recipe)
    yield from _strategy_misfits(recipe)
    yield from _features_misfits(recipe)
    yield from _pruning_misfits(recipe)
    for name, stage in (("stage1", train.stage1), ("stage2", train.stage2)):
        if not stage.steps:
            continue
        path, clips = f"train.{name}", train.clips_per_micro_batch(stage)
        if any(stage.visual_dropout) and not reasoner.component.sees_video:
            message = (
                f"is {list(stage.visual_dropout)}, but the reasoner {reasoner.name!r} sees no video, so that there is nothing "
                "to drop. Remove it, or set model.reasoner to one that does, such as clue_chain"
            )
            yield Problem(f"{path}.visual_dropout", message)
        if stage.until is not None and not recipe.data.validation:
            message = (
                f"is {stage.until:g}, but data.validation is empty, so that nothing is measured. Name a dataset there, or "
                "remove it to train all steps"
            )
            yield Problem(f"{path}.until", message)
        if stage.losses.counterfactual and clips < 2:
            message = (
                "needs another video's clues in every micro-batch, but clips_per_batch / (workers x accumulate) is "
                f"{stage.clips_per_batch} / ({train.max_workers} x {stage.accumulate}) = {clips} clip. Raise clips_per_batch, lower "
                "accumulate, or set it to 0"
            )
            yield Problem(f"{path}.losses.counterfactual", message)
        if not stage.losses.chain and reasoner.to_dict().get("generate_chain"):
            message = (
                "is 0, but model.reasoner.generate_chain is true: the model would answer after a chain that it never learned to "
                "write. Give it a weight, such as 1, or set model.reasoner.generate_chain to false"
            )
            yield Problem(f"{path}.losses.chain", message)
        yield from _idle_rates(recipe, stage, path)


def _idle_rates(recipe: Recipe, stage: Stage, path: str) -> Iterator[Problem]:
    """Learning rates of groups that are not trained."""
    clue_filter, reasoner, tuning = recipe.model.clue_filter, recipe.model.reasoner, recipe.train.tuning
    for group, trained, why_not in (
        ("gate", clue_filter.component.learned, f"the clue filter {clue_filter.name!r} has no gate to teach"),
        ("gate", stage.losses.filter, f"{path}.losses.filter, which teaches the gate, is 0"),
        ("clues", reasoner.component.sees_clues, f"the reasoner {reasoner.name!r} reads no clues"),
        ("projector", tuning.projector, "train.tuning.projector is false"),
        ("vision", tuning.vision, "train.tuning.vision is false"),
    ):
        rate = getattr(stage.lrs, group)
        if rate is not None and not trained:
            yield Problem(f"{path}.lrs.{group}", f"is {rate:g}, but {why_not}. Set it to null, or train that part")


def _folder_misfits(recipe: Recipe) -> Iterator[Problem]:
    if message := storage.problem_of(recipe.store):
        yield Problem("store", message)
    for name in ("runs", "mirror"):
        if "://" in getattr(recipe, name):
            yield Problem(
                name,
                "is a URI, and only `store` may be one. Give a path; `runs` one that all machines mount, such as NFS",
            )


def _strategy_misfits(recipe: Recipe) -> Iterator[Problem]:
    train, strategy = recipe.train, recipe.train.strategy
    if isinstance(strategy, DeepSpeed):
        for key, owner in strategy.conflicts():
            yield Problem(f"train.strategy.config.{key}", f"is decided by {owner}. Set it there and remove it here")
        for name in ("stage1", "stage2"):
            if getattr(train, name).steps and getattr(train, name).optimizer == "muon":
                message = (
                    "is 'muon', which needs whole matrices, but ZeRO steps on flat pieces of all weights. Set train.strategy to "
                    "ddp or fsdp, or the optimizer to adamw with a learning rate for it"
                )
                yield Problem(f"train.{name}.optimizer", message)
    if isinstance(strategy, Fsdp) and strategy.param_dtype == "bf16" and train.precision != "bf16":
        message = f"is bf16, but train.precision is {train.precision}. Set both to bf16, or this to fp32"
        yield Problem("train.strategy.param_dtype", message)


def _features_misfits(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if recipe.data.features and train.tuning.vision and (train.stage1.steps or train.stage2.steps):
        message = (
            "is on, but train.tuning.vision is true: what a vision tower sees can be kept only while its weights stay what they "
            "are. Set train.tuning.vision to false, or data.features to off"
        )
        yield Problem("data.features", message)


def _pruning_misfits(recipe: Recipe) -> Iterator[Problem]:
    if found := recipe.evaluate.pruning.misfit(recipe.model.reasoner, recipe.model.clue_extractor):
        yield Problem(f"evaluate.{found.path}", found.message)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `key.path=value` overrides applied. Raises RecipeError or PluginError."""
    return overridden(read_values(Path(path)), overrides, file=str(path))


def overridden(values: dict[str, Any], overrides: Sequence[str], *, file: str) -> Recipe:
    """The recipe of these values, which are changed by the overrides. Raises RecipeError or PluginError."""
    for text in overrides:
        override(values, text)
    return Recipe.from_dict(values, file=file)


def read_values(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The YAML as a dict, merged over what it extends."""
    if path.resolve() in seen:
        raise RecipeError(str(path), [Problem("extends", f"recipes extend each other in a circle: {path}")])
    try:
        values: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        near = ", ".join(sorted(str(other) for other in path.parent.glob("*.yaml"))) or "none"
        raise RecipeError(str(path), [Problem("", f"no such file. YAML files in {path.parent}: {near}")]) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(str(path), [Problem("", f"cannot be read as YAML: {error}")]) from None
    if not isinstance(values, dict):
        raise RecipeError(str(path), [Problem("", f"a recipe is a map of settings, not {type(values).__name__}")])
    if isinstance(base := values.get("extends"), str):
        return merge(read_values(path.parent / base, (*seen, path.resolve())), values)
    return values


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`: maps deeply, everything else replaced. A component under another name starts afresh."""
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            value = merge(old, value)
        result[key] = value
    return result


def override(values: dict[str, Any], text: str) -> None:
    """Change values as `key.path=value` says. Raises RecipeError."""
    path, equals, setting = text.partition("=")
    if not equals or not path:
        raise RecipeError("command line", [Problem("", f"{text!r} is not key.path=value")])
    try:
        value = yaml.safe_load(setting)
    except yaml.YAMLError as error:
        raise RecipeError("command line", [Problem(path, f"cannot be set to {setting!r}: {error}")]) from None
    assign(values, path, value, file="command line")


def assign(values: dict[str, Any], path: str, value: Any, *, file: str) -> None:
    """Set what stands at a dotted path, as `path=value` on the command line does. Raises RecipeError, naming `file`, when
    there can be nothing at that path."""
    *parents, last = path.split(".")
    here: Any = values
    for depth, part in enumerate(parents):
        try:
            key: Any = int(part) if isinstance(here, list) else part
            below = here[key] if isinstance(here, list) else here.setdefault(key, {})
            if isinstance(below, str):
                here[key] = below = {"name": below}  # `sampler: uniform` given an option
            here = below
        except (IndexError, ValueError, AttributeError):
            raise RecipeError(file, [Problem(".".join(parents[: depth + 1]), "no such setting")]) from None
    try:
        here[int(last) if isinstance(here, list) else last] = value
    except (IndexError, ValueError, TypeError) as error:
        raise RecipeError(file, [Problem(path, f"cannot be set to {value!r}: {error}")]) from None


def json_schema() -> dict[str, Any]:
    """For editors: every section, every registered component and its settings."""
    load_components()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
