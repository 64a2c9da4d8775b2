"""Content addresses: a setting changes the address of its step and of every later one, and of no earlier one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from cluenet import fingerprint
from cluenet.fingerprint import Leaf, leaves
from cluenet.recipe import Recipe
from cluenet.registry import ComponentConfig

ORDER = ("prepare", "pretrain", "stage1", "stage2", "evaluate")

RECIPE = Recipe.from_dict({
    "data": {
        "train": [{"name": "clueworld", "split": "train"}],
        "validation": [{"name": "clueworld", "split": "validation"}],
        "test": [{"name": "clueworld", "split": "test"}],
        "size": {"height": 64, "width": 64},
    },
    "model": {"reasoner": "clue_chain"},
    "train": {"stage1": {"steps": 10}, "stage2": {"steps": 5}},
})  # fmt: skip
DATASETS = ("data.train", "data.validation", "data.test")
OTHER_COMPONENT = {
    "reader": "pyav", "fallback_reader": "decord", "sampler": "fps", "clue_source": {"name": "file", "path": "c.jsonl"},
    "backbone": {"name": "hf_vlm", "path": "b"}, "clue_extractor": "none", "clue_filter": "top_k", "reasoner": "direct",
    "strategy": "fsdp",
    "tuning": "lora", "pruning": "two_pass",
}  # fmt: skip
OTHER_VALUE: dict[str, Any] = {
    "train.stage1.accumulate": 2, "train.stage2.accumulate": 2, "data.reader.strategy": "scan", "data.fallback_reader.strategy": "scan", "data.codec": "jpeg95", "data.size.max_pixels": None, "train.precision": "bf16",
    "train.stage1.optimizer": "muon", "train.stage2.optimizer": "muon", "train.report_to": [], "evaluate.rows": ["own"], "evaluate.mode": "generate",
    "model.reasoner.scoring": "likelihood", "train.stage2.coupled": False, "train.stage1.clues": "own",
    "train.stage2.clues": None, "version": None, "extends": None, "plugins": None, "model.backbone.family": "internvl",
    "train.stage1.until": 0.9, "train.stage2.until": 0.9, "train.stage1.visual_dropout": None, "train.stage2.visual_dropout": None,
    "train.stage1.truth_share": None, "train.stage2.truth_share": [0.5, 0.5],
    "data.features": None, "data.allow_overlap": ["clueworld"], "data.decode_workers": 3, "train.validation.patience": 3, "train.validation.max_clips": 7, "train.validation.metric": "x",
    "train.stage1.coupled": None, "train.stage1.clips_per_batch": 8, "train.stage2.clips_per_batch": 8,
    "train.workers": 2, "train.preemption.max_failures": 2, "model.backbone.heads": 2, "train.stage1.betas": [0.5, 0.6], "train.stage2.betas": [0.5, 0.6], "model.clue_extractor.layer": 0.4,
    "model.clue_filter.gate": "soft", "train.stage1.filter_loss.utility": "mean", "train.stage2.filter_loss.utility": "mean",
    "train.stage1.filter_loss.source": None, "train.stage2.filter_loss.source": "offline",
    "train.stage1.filter_loss.ranking": None, "train.stage2.filter_loss.ranking": None,
    "model.clue_extractor.matching": "hungarian", "train.stage1.lrs.gate": None, "train.stage2.lrs.gate": None,  # the filter of this recipe has none
    **{f"train.stage{n}.lrs.{group}": 0.01 for n in (1, 2) for group in ("clues", "projector", "vision")},
    "model.clue_extractor.bottleneck": "soft", "model.clue_extractor.presence": "learned",
    "model.clue_filter.threshold": 0.5, "train.stage1.final_lr_fraction": 0.5, "train.stage2.final_lr_fraction": 0.5,
    **dict.fromkeys((f"serve.{part}.autoscaling.min_replicas" for part in ("ingress", "decoding", "engine")), 2),
    "serve.keys_variable": "KEYS", "serve.cors_origins": ["http://x"], "serve.allowed_roots": ["/x"],
}  # fmt: skip
"""Where a number cannot simply be raised. None: there is no other valid value (or it needs another setting too)."""


def other(leaf: Leaf) -> Any:
    """Another valid value, or None."""
    *_, parent, last = (leaf.path if "." in leaf.path else f".{leaf.path}").split(".")
    if last == "name" and parent:
        return OTHER_COMPONENT[parent]
    if leaf.path in OTHER_VALUE:
        return OTHER_VALUE[leaf.path]
    if isinstance(leaf.value, bool):
        return not leaf.value
    if isinstance(leaf.value, int):
        return leaf.value * 2 + 32  # keeps multiples of 16 and 32
    return leaf.value * 0.5 + 0.125 if isinstance(leaf.value, float) else f"{leaf.value}x"


def changed(leaf: Leaf) -> Recipe | None:
    value = other(leaf)
    if value is None and leaf.path != "data.fallback_reader":
        return None
    values = RECIPE.to_dict()
    here: Any = values
    *parents, last = leaf.path.split(".")
    if last == "name" and parents:
        *parents, last = parents
    for part in parents:
        here = here[part]
    here[last] = value
    return Recipe.from_dict(values)


def addresses(recipe: Recipe) -> dict[str, Any]:
    train, validation, test = (
        [fingerprint.prepared(recipe, entry, ["content"]) for entry in getattr(recipe.data, split)]
        for split in ("train", "validation", "test")
    )
    base = fingerprint.pretrained(recipe, train, [])
    stage1 = fingerprint.stage1(recipe, base, train, validation)
    stage2 = fingerprint.stage2(recipe, stage1)
    evaluation = [fingerprint.evaluation(recipe, stage2, one) for one in test]
    return {
        "prepare": [train, validation, test],
        "pretrain": base,
        "stage1": stage1,
        "stage2": stage2,
        "evaluate": evaluation,
    }


BEFORE = addresses(RECIPE)

LEAVES = [leaf for leaf in leaves(RECIPE) if not leaf.path.startswith(DATASETS)]
CHANGEABLE = [leaf for leaf in LEAVES if changed(leaf) is not None]


def test_nearly_every_setting_is_tried():
    untried = {leaf.path for leaf in LEAVES} - {leaf.path for leaf in CHANGEABLE}
    without_another_value = {path for path, value in OTHER_VALUE.items() if value is None}
    assert untried <= without_another_value
    assert len(CHANGEABLE) > 60


@pytest.mark.parametrize("leaf", CHANGEABLE, ids=lambda leaf: leaf.path)
def test_a_setting_changes_its_step_and_the_later_ones_only(leaf: Leaf):
    recipe = changed(leaf)
    assert recipe is not None
    after = addresses(recipe)
    different = [step for step in ORDER if after[step] != BEFORE[step]]
    step = str(leaf.step)
    assert different == ([] if step == "none" else list(ORDER[ORDER.index(step) :]))


def with_dataset(split: str, **values: Any) -> dict[str, Any]:
    recipe = RECIPE.to_dict()
    recipe["data"][split] = [{**recipe["data"][split][0], **values}]
    return addresses(Recipe.from_dict(recipe))


def test_another_training_set_makes_everything_stale():
    after = with_dataset("train", videos=7)
    assert [step for step in ORDER if after[step] != BEFORE[step]] == list(ORDER)
    assert after["prepare"][1:] == BEFORE["prepare"][1:]


def test_another_weight_of_a_training_set_prepares_nothing():
    after = with_dataset("train", weight=2.0)
    assert [step for step in ORDER if after[step] != BEFORE[step]] == ["stage1", "stage2", "evaluate"]


def test_another_validation_set_leaves_the_base():
    after = with_dataset("validation", videos=7)
    assert [step for step in ORDER if after[step] != BEFORE[step]] == ["prepare", "stage1", "stage2", "evaluate"]


def test_another_test_set_trains_nothing():
    after = with_dataset("test", videos=7)
    assert [step for step in ORDER if after[step] != BEFORE[step]] == ["prepare", "evaluate"]


def test_the_content_of_files_counts():
    entry = RECIPE.data.train[0]
    assert fingerprint.prepared(RECIPE, entry, ["a"]) != fingerprint.prepared(RECIPE, entry, ["b"])


def test_the_version_of_a_component_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RECIPE.data.sampler.component, "version", 99)
    assert addresses(RECIPE)["prepare"] != BEFORE["prepare"]


def test_addresses_are_the_same_on_every_run():
    """A changed value here means that every user prepares and trains again: raise FORMAT if that is meant."""
    assert addresses(Recipe.from_dict(RECIPE.to_dict())) == BEFORE
    assert all(len(address) == 20 for address in (BEFORE["pretrain"], BEFORE["stage1"], BEFORE["stage2"]))


def test_no_section_is_forgotten():
    """`leaves` walks into every section there is: as many leaves as fields that are no section."""

    def count(section: BaseModel) -> int:
        values = (getattr(section, name) for name in type(section).model_fields)
        return sum(
            count(value) + isinstance(value, ComponentConfig)
            if isinstance(value, BaseModel)
            else sum(count(item) + 1 for item in value)
            if isinstance(value, tuple) and value and isinstance(value[0], ComponentConfig)
            else 1
            for value in values
        )

    assert len(list(leaves(RECIPE))) == count(RECIPE)
