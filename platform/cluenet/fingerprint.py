"""Content addresses: what a prepared set, a base, a stage, an evaluation depends on, hashed.

A finished step is found again under its fingerprint and skipped; a changed recipe gets another one, so it can never
resume an older run by accident. Each leaf of a recipe declares its step (`cluenet.steps.setting`); the leaves of one step
and the fingerprints of the steps before it make that step's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cluenet.config.train import STAGE_STEP, Stage
from cluenet.recipe import Recipe
from cluenet.records import content_hash
from cluenet.registry import ComponentConfig
from cluenet.steps import declared_step

FORMAT = 2
"""Raise when the layout of prepared folders or checkpoints changes."""


@dataclass(frozen=True)
class Leaf:
    path: str
    value: Any
    step: str | None


def leaves(section: BaseModel, prefix: str = "", step: str | None = None) -> Iterator[Leaf]:
    """Every setting of a recipe (or of a part of it) with the step it affects; None means undeclared.

    Settings of a component inherit the step of its kind; settings of a stage that of the stage.
    """
    for name, field in type(section).model_fields.items():
        path, value = f"{prefix}{name}", getattr(section, name)
        own = declared_step(field) or step
        if isinstance(value, ComponentConfig):
            yield from _component_leaves(value, path, declared_step(field))
        elif isinstance(value, BaseModel):
            yield from leaves(value, f"{path}.", STAGE_STEP[type(value)] if isinstance(value, Stage) else own)
        elif isinstance(value, tuple) and value and isinstance(value[0], ComponentConfig):
            for index, item in enumerate(value):
                yield from _component_leaves(item, f"{path}.{index}", own)
        else:
            yield Leaf(path, value, own)


def _component_leaves(config: ComponentConfig, path: str, field_step: str | None) -> Iterator[Leaf]:
    kind_step = field_step or _kind_step(config)
    yield Leaf(f"{path}.name", [config.name, config.component.version], kind_step)
    yield from leaves(config, f"{path}.", kind_step)


def _kind_step(config: ComponentConfig) -> str:
    from cluenet.registry import register

    return register.kinds()[config.component.kind].step


def _values(recipe: Recipe, step: str, *prefixes: str) -> dict[str, Any]:
    """Leaves of one step below some dotted prefixes."""
    return {
        leaf.path: leaf.value
        for leaf in leaves(recipe)
        if leaf.step == step and leaf.path.startswith(prefixes) and not leaf.path.startswith(_DATASETS)
    }


RESULTS = 5
"""Raise when results.json or samples.jsonl get other contents, so that earlier evaluations are made again."""
_DATASETS = ("data.train", "data.validation", "data.test")


def prepared(recipe: Recipe, dataset: ComponentConfig, sources: list[str]) -> str:
    """Address of one dataset's prepared folder. `sources`: `Dataset.sources()` and `ClueSource.sources()`."""
    mine = {
        name: value
        for name, value in dataset.to_dict().items()
        if name == "name" or declared_step(type(dataset).model_fields[name]) in (None, "prepare")
    }
    return content_hash(
        FORMAT, "prepared", mine, dataset.component.version, sources, _values(recipe, "prepare", "data.")
    )


def pretrained(recipe: Recipe, train: list[str], sources: list[str]) -> str:
    """Address of the base the stages start from. `train`: addresses of the prepared training sets."""
    backbone = _values(recipe, "pretrain", "model.")
    return content_hash(FORMAT, "pretrained", backbone, recipe.seed, train, sources)


def base_part(backbone: ComponentConfig, depends_on: object) -> str:
    """Address of what several bases of a kind of backbone have in common."""
    return content_hash(FORMAT, "base_part", backbone.name, backbone.component.version, depends_on)


def stage1(recipe: Recipe, base: str, train: list[str], validation: list[str]) -> str:
    weights = [dataset.to_dict()["weight"] for dataset in recipe.data.train]
    settings = _values(recipe, "stage1", "model.", "train.")
    if recipe.train.stage1.losses.filter:  # else stage 1 neither teaches nor uses the filter
        settings |= _values(recipe, "stage2", "model.clue_filter")
    return content_hash(FORMAT, "stage1", settings, base, train, weights, validation, recipe.seed)


def utilities(recipe: Recipe, stage1_address: str) -> str:
    """Address of the utilities that the model of stage 1 records."""
    settings = recipe.train.stage2.filter_loss
    return content_hash(FORMAT, "utilities", settings.utility, settings.distractors, stage1_address)


def stage2(recipe: Recipe, stage1_address: str) -> str:
    return content_hash(FORMAT, "stage2", _values(recipe, "stage2", "model.", "train."), stage1_address)


def evaluation(recipe: Recipe, model: str, test: str) -> str:
    """Address of one test set's evaluation. Its measure of faithfulness takes from the last stage what makes a clue useful."""
    settings, useful = _values(recipe, "evaluate", "evaluate."), recipe.train.last_stage.filter_loss
    judged = [useful.utility, useful.delta] if recipe.evaluate.faithfulness else []
    return content_hash(FORMAT, "evaluation", RESULTS, settings, judged, model, test)
