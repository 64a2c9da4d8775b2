"""The recipes for large models, as they are, on tiny checkpoints of their families: both stages from kept features, and answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluenet.data.features import make_features
from cluenet.evaluate.evaluator import evaluate
from cluenet.features import Tower
from cluenet.folders import read_manifest
from cluenet.model.vlm import VisionLanguageModel
from cluenet.recipe import Recipe, load
from cluenet.train.export import save_final_model
from cluenet.train.trainer import train_stage
from helpers.checkpoints import small_checkpoint
from helpers.evaluation import Silent, prepared_test
from helpers.training import lines_of

RECIPES = Path(__file__).parents[2] / "recipes"
FAMILIES = {
    "nextqa_qwen2_5_vl_7b": "qwen2_5_vl", "nextqa_internvl3_8b": "internvl", "star_qwen3_vl_8b": "qwen3_vl", "quick_smolvlm2": "smolvlm",
}  # fmt: skip


def small(name: str, store: Path) -> Recipe:
    """On one CPU process, two steps of two clips a stage; everything else as the recipe has it."""
    stages = [f"train.{stage}.{key}" for stage in ("stage1", "stage2")
              for key in ("steps=2", "clips_per_batch=2", "accumulate=1", "warmup_steps=1")]  # fmt: skip
    return load(RECIPES / f"{name}.yaml", [
        f"model.backbone.path={small_checkpoint(FAMILIES[name])}", f"store={store}", "data.clue_source=annotated",
        "model.clue_extractor.heads=2", "train.workers=1", "train.resources={cpu: 1, gpu: 0}", "train.strategy=ddp", "train.report_to=[]",
        "data.features=on", "evaluate.threads=1", *stages,
    ])  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains_both_stages_on_features_and_answers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = small(name, tmp_path)
    prepared = prepared_test(tmp_path / "a", recipe=recipe, clips=4)
    base = small_checkpoint(FAMILIES[name])
    tower = Tower(base, recipe.model.backbone.build().loading())
    features = {prepared: make_features(recipe, prepared, tower, progress=Silent, local=True)}
    monkeypatch.setattr(VisionLanguageModel, "tower", lambda *_: pytest.fail("the tower was run"))
    best, run = None, tmp_path / "run"
    for stage in ("stage1", "stage2"):
        best = train_stage(
            recipe, stage, run=run, base=base, prepared={"train": [prepared], "validation": [prepared]}, init=best,
            address=stage[-1] * 20, features=features, say=lambda _: None, local=True,
        )  # fmt: skip
    assert {"answer", "concept", "attention", "labels/filter"} <= lines_of(run)[-1].keys()
    policy = read_manifest(prepared)["policy"]
    model = save_final_model(recipe, run=run, base=base, checkpoint=best, frame_policy=policy, address="2" * 20)
    found = evaluate(
        recipe, model_folder=model, prepared=[prepared], out=tmp_path / "out", progress=Silent, features=features, local=True
    )  # fmt: skip
    assert found["fake-test"]["accuracy"]["overall"]["n"] == 10
