"""Features in place of frames: the same losses, gradients and answers as with the live tower; addresses, damage, refusal."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluenet import features
from cluenet.config.model import ModelSection
from cluenet.config.train import TrainSection
from cluenet.data import feature_parts
from cluenet.data.features import make_features
from cluenet.errors import CheckpointError, DataError, RecipeError, StorageError
from cluenet.features import EncodedSet, Tower, folder_of, opened
from cluenet.folders import read_manifest
from cluenet.model.build import build_model
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.vision import EncodedClip
from cluenet.model.vlm import VisionLanguageModel
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from helpers.checkpoints import FAMILIES, checkpoint, write_checkpoint
from helpers.evaluation import Silent
from helpers.models import clip
from helpers.prepared import prepared_set

CLIPS = 5
TOLERANCE = 1e-5
"""Of losses and log-probabilities: a live batch computes all of its clips in one pass, features are made clip by clip."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepared_set(tmp_path_factory.mktemp("prepared") / "a", clips=CLIPS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(feature_parts, "CLIPS_PER_PART", 2)
    monkeypatch.setattr("cluenet.data.features.CLIPS_PER_PART", 2)


def recipe_of(store, **data) -> Recipe:
    return Recipe.from_dict({
        "store": str(store), "data": {"features": True, **data}, "train": {"tuning": {"name": "lora"}},
    })  # fmt: skip


def made(store, prepared, family="qwen3_vl", dtype="float32") -> Path:
    tower = Tower(checkpoint(family), {"dtype": dtype})
    return make_features(recipe_of(store), prepared, tower, progress=Silent, local=True)


def model_of(family, **train):
    section = ModelSection.model_validate({
        "backbone": {"name": "hf_vlm", "path": str(checkpoint(family))}, "clue_filter": "adaptive", "reasoner": "clue_chain",
        "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2},
    })  # fmt: skip
    settings = TrainSection.model_validate({
        "tuning": {"name": "lora", "projector": True, "dropout": 0.0}, "stage1": {"losses": {"chain": 1.0}}, **train
    })  # fmt: skip
    return build_model(section, checkpoint(family), seed=0, train=settings), settings


def batch_of(model, found: PreparedSet):
    clips = [(found.clip(key), found.examples_of(key)) for key in found.clip_keys]
    return model.collate(clips, seed=0, shuffle_options=True, chain=True)


# ------------------------------------------------------------------------------------------- the same as the live tower


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_states_are_bit_for_bit_those_of_the_tower(family, store, prepared):
    vlm, frames = VisionLanguageModel.load(checkpoint(family)).eval(), PreparedSet(prepared)
    found = EncodedSet(prepared, made(store, prepared, family))
    for key in found.clip_keys:
        shown, stored = frames.frames(key), found.clip(key)
        grid = vlm.grid_of(shown)
        with torch.no_grad():
            live = vlm.tower(vlm.pixels(shown.frames_THWC, grid), vlm.grid_thw([grid]))
        assert (stored.grid, stored.tower.rows) == (grid, live.rows)
        assert torch.equal(stored.tower.states, live.states)
        assert len(stored.tower.deepstack) == len(live.deepstack) == (2 if family == "qwen3_vl" else 0)
        assert all(map(torch.equal, stored.tower.deepstack, live.deepstack))
        kept = [stored.tower.states, *stored.tower.deepstack]
        assert sum(values.numel() for values in kept) == vlm.tower_values(grid)  # what `cluenet plan` counts


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_gradients_and_answers_are_those_of_the_live_tower(family, store, prepared, monkeypatch):
    model, settings = model_of(family)
    live, encoded = PreparedSet(prepared), opened(prepared, {prepared: made(store, prepared, family)})

    def trained(batch):
        model.train().zero_grad()
        output = model(batch, stage=settings.stage1, seed=0)
        output["loss"].backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return {name: value.detach() for name, value in output.items()}, gradients

    def answered(batch):
        return torch.cat([torch.tensor(answer.option_logprobs) for answer in model.predict(batch)])

    wanted, slopes = trained(batch_of(model, live))
    answers = answered(batch_of(model, live))
    monkeypatch.setattr(VisionLanguageModel, "tower", lambda *_: pytest.fail("the tower was run"))
    monkeypatch.setattr(VisionLanguageModel, "pixels", lambda *_: pytest.fail("pixels were made"))
    found, mine = trained(batch_of(model, encoded))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=TOLERANCE, atol=TOLERANCE), name
    assert mine.keys() == slopes.keys()
    assert any("lora_" in name for name in mine)
    assert any("modules_to_save" in name for name in mine)  # the projector learns from stored states
    for name, slope in slopes.items():
        assert torch.allclose(mine[name], slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max()) + 1e-7), name
    assert torch.allclose(answered(batch_of(model, encoded)), answers, atol=TOLERANCE)


def test_half_precision_is_kept_as_it_is(store, prepared):
    found = EncodedSet(prepared, made(store, prepared, dtype="bfloat16"))
    assert found.clip(found.clip_keys[0]).tower.states.dtype == torch.bfloat16
    assert found.features != made(store, prepared)
    half, whole = (read_manifest(folder)["bytes"] for folder in (found.features, made(store, prepared)))
    assert half * 2 == whole


def test_pruned_prompts_take_features_too(store, prepared):
    vlm = VisionLanguageModel.load(checkpoint("llava_onevision")).eval()

    def states(found: PreparedSet):
        clips = [found.clip(key) for key in found.clip_keys[:2]]
        grids = [vlm.grid_of(one) for one in clips]
        kept = [torch.arange(grid.tokens) % 3 > 0 for grid in grids]
        with torch.no_grad():
            return vlm.prefix(prefix_batch(vlm, clips, grids, kept=kept), layer=2, whole=False).visual_BND

    encoded = EncodedSet(prepared, made(store, prepared, "llava_onevision"))
    assert torch.allclose(states(encoded), states(PreparedSet(prepared)), atol=TOLERANCE)


def test_batches_with_features_move_to_a_device(store, prepared):
    model, _ = model_of("qwen3_vl")
    found = EncodedSet(prepared, made(store, prepared))
    prefix = batch_of(model, found).to("cpu").prefix
    assert prefix.pixels.numel() == 0
    assert prefix.to("meta").encoded.states.device.type == "meta"
    assert prefix.to("meta").encoded.deepstack[0].device.type == "meta"


# ----------------------------------------------------------------------------------------------------- folder and accounts


def test_the_accounts_are_exact(store, prepared):
    folder = made(store, prepared, "llava_onevision")
    manifest, parts = read_manifest(folder), sorted(folder.glob("part-*"))
    assert [part.name for part in parts] == [f"part-0000{n}.safetensors" for n in range(3)]
    sizes = [tensor.nbytes for part in parts for tensor in load_file(part).values()]
    assert len(sizes) == CLIPS
    assert (manifest["clips"], manifest["parts"], manifest["bytes"]) == (CLIPS, 3, sum(sizes))
    assert manifest["run"]["parts"] == {"made": 3, "reused": 0}
    assert (Silent.last.done, Silent.last.total) == (CLIPS, CLIPS)
    assert folder.parent == store / "features"
    assert folder.name == manifest["address"]


def test_finished_features_are_found_again_and_a_damaged_part_is_made_again(tmp_path, prepared, monkeypatch):
    folder = made(tmp_path, prepared)
    before = [part.read_bytes() for part in sorted(folder.glob("part-*"))]
    with monkeypatch.context() as patch:
        patch.setattr(features, "write_part", lambda *_: pytest.fail("made again"))
        assert made(tmp_path, prepared) == folder
    (folder / "manifest.json").unlink()
    cut = folder / "part-00001.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    (folder / ".part-00002.safetensors.0.part").write_bytes(b"left by a process that was killed")
    assert made(tmp_path, prepared) == folder
    assert [part.read_bytes() for part in sorted(folder.glob("part-*"))] == before
    assert read_manifest(folder)["run"]["parts"] == {"made": 1, "reused": 2}
    assert not list(folder.glob(".*"))


def test_recipes_with_the_same_clips_and_tower_share_a_folder(store, prepared, tmp_path):
    """Other questions about the same clips; another language model behind the same tower; another name of the files."""
    folder, recipe = made(store, prepared), recipe_of(store)
    other = shutil.copytree(prepared, tmp_path / "other")  # another prepared set, of the same clips
    assert folder_of(recipe, other, Tower(checkpoint("qwen3_vl"), {})) == folder

    def changed(name: str, change) -> Path:
        base = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / name)
        weights = load_file(base / "model.safetensors")
        save_file(change(weights), base / "model.safetensors", metadata={"format": "pt"})
        return folder_of(recipe, prepared, Tower(base, {}))

    behind = ("language_model", "lm_head", "merger")
    assert changed("text", lambda w: {k: v + 1 if any(p in k for p in behind) else v for k, v in w.items()}) == folder
    assert changed("names", lambda w: {k.removeprefix("model."): v for k, v in w.items()}) == folder
    assert changed("half", lambda w: {k: v.double() for k, v in w.items()}) == folder  # loaded in the same data type
    tower = next(k for k in load_file(checkpoint("qwen3_vl") / "model.safetensors") if ".visual.blocks.0" in k)
    assert changed("tower", lambda w: {**w, tower: w[tower] + 1}) != folder
    with pytest.raises(CheckpointError, match="none of its weights is a vision tower's"):
        changed("none", lambda w: {k: v for k, v in w.items() if "visual" not in k})


def test_the_address_depends_on_clips_pixels_dtype_and_the_towers_settings(store, prepared, tmp_path):
    recipe, base = recipe_of(store), tmp_path / "base"
    write_checkpoint("llava_onevision", base)
    before = folder_of(recipe, prepared, Tower(base, {}))
    assert folder_of(recipe, prepared, Tower(base, {"dtype": "bfloat16"})) != before
    assert folder_of(recipe, prepared_set(tmp_path / "b", clips=CLIPS), Tower(base, {})) != before
    for file, change in (
        ("preprocessor_config.json", {"image_mean": [0.4, 0.4, 0.4]}),
        ("config.json", {"vision_feature_layer": -2}),
    ):
        other = shutil.copytree(base, tmp_path / file)
        (other / file).write_text(json.dumps({**json.loads((other / file).read_text()), **change}))
        assert folder_of(recipe, prepared, Tower(other, {})) != before
    assert folder_of(recipe, prepared, Tower(shutil.copytree(base, tmp_path / "same"), {})) == before


def test_sharded_weights_count_like_whole_ones(store, prepared, tmp_path):
    vlm = VisionLanguageModel.load(checkpoint("internvl"))
    vlm.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    vlm.hf.save_pretrained(tmp_path, max_shard_size="50kB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    whole, shards = (Tower(base, {}).address for base in (checkpoint("internvl"), tmp_path))
    assert shards == whole


def test_lost_parts_are_missed(tmp_path, prepared, monkeypatch):
    counts = {"clips": 2, "bytes": 1}
    monkeypatch.setattr(feature_parts, "write_part", lambda path, clips: {**counts, "clips": len(clips)})
    with pytest.raises(StorageError, match=r"3 of 3 parts cannot be seen from here\. Set `store=`"):
        made(tmp_path, prepared)
    assert not list(tmp_path.glob("features/*/manifest.json"))


# ----------------------------------------------------------------------------------------------------------------- reading


def test_a_set_with_features_is_pickled_with_them(store, prepared):
    found = pickle.loads(pickle.dumps(EncodedSet(prepared, made(store, prepared))))
    assert isinstance(found.clip(found.clip_keys[-1]), EncodedClip)
    assert found.frames(found.clip_keys[0]).frames_THWC.shape == clip(0).frames_THWC.shape
    assert type(opened(prepared)) is PreparedSet


def test_unfinished_foreign_and_damaged_features_are_refused(tmp_path, prepared):
    with pytest.raises(StorageError, match="missing"):
        EncodedSet(prepared, tmp_path / "nowhere")
    folder = made(tmp_path, prepared)
    with pytest.raises(DataError, match=r"features of 5 clips in format 1, 2 in format 1 are wanted\. Delete"):
        EncodedSet(prepared_set(tmp_path / "b", clips=2), folder)
    found = EncodedSet(prepared, folder)
    (folder / "part-00002.safetensors").write_bytes(b"short")
    found.clip(found.clip_keys[0])
    with pytest.raises(DataError, match=r"part-00002\.safetensors: missing or damaged.*the features are made again"):
        found.clip(found.clip_keys[4])
    with pytest.raises(KeyError):
        found.clip("nobody")


# ----------------------------------------------------------------------------------------------------------------- refusal


@pytest.mark.parametrize("tuning", ["full", {"name": "lora", "vision": True}, {"name": "full", "projector": False}])
def test_a_trained_tower_refuses_features_and_both_settings_are_named(tuning):
    with pytest.raises(RecipeError) as error:
        Recipe.from_dict({"data": {"features": True}, "train": {"tuning": tuning}})
    for words in ("data.features", "train.tuning.vision is true", "Set train.tuning.vision to false"):
        assert words in str(error.value)


def test_a_frozen_tower_or_no_training_takes_them():
    for train in (
        {"tuning": "lora"},
        {"tuning": {"name": "full", "vision": False}},
        {"stage1": {"steps": 0}, "stage2": {"steps": 0}},
    ):
        assert Recipe.from_dict({"data": {"features": True}, "train": train}).data.features
