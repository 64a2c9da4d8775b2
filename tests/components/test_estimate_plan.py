"""`cluenet plan`: from config.json alone, in words and as JSON; a plan that is too large is explained, and refused by a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cluenet import cli
from cluenet.config.train import Stage2
from cluenet.errors import CheckpointError, RecipeError
from cluenet.estimate import fit
from cluenet.estimate.accelerators import ACCELERATORS, Accelerator
from cluenet.estimate.estimate import estimate
from cluenet.estimate.memory import update_bytes
from cluenet.estimate.parameters import whole
from cluenet.estimate.states import ZERO_DEFAULTS
from cluenet.model.unloaded import unloaded_model
from cluenet.recipe import Recipe
from cluenet.run import Run
from helpers.checkpoints import checkpoint

NOTHING = Accelerator("nothing", 0.5, 1, 1)
"""Too small for anything: the runtime alone takes 1.07 GB."""


@pytest.fixture
def config_only(tmp_path: Path) -> Path:
    """A checkpoint of which only config.json was downloaded."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shutil.copy(checkpoint("qwen3_vl") / "config.json", folder)
    return folder


@pytest.fixture
def values(tmp_path: Path, config_only: Path) -> dict[str, Any]:
    data = {
        "train": [{"name": "clueworld", "videos": 3, "folder": str(tmp_path / "world")}],
        "size": {"height": 32, "width": 32},
    }
    return {
        "store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"), "data": data,
        "model": {"backbone": {"name": "hf_vlm", "path": str(config_only)}},
        "train": {name: {"steps": 10, "clips_per_batch": 4} for name in ("stage1", "stage2")},
    }  # fmt: skip


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, values: dict) -> Callable[..., tuple[int, str, str]]:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.call(["plan", str(path), *arguments])
        return code, *capsys.readouterr()

    return run


# ------------------------------------------------------------------------------------------------------- the verb


def test_config_json_is_enough(call, tmp_path: Path):
    code, output, _ = call()
    assert code == 0
    assert "No steps are listed" in output
    assert "model.safetensors" in output  # what is missing for them
    for words in ("stage1", "language model", "clue parts", "optimizer states", "activations, with gradient checkpointing",
                  "TFLOP a step", "visual tokens", "prepared, at most", "object store", "fits", "h100"):  # fmt: skip
        assert words in output
    assert "no tokenizer" in output
    assert "no processor files" in output
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "checkpoint"}


def test_json_has_the_numbers(call):
    whole = f"model.backbone.path={checkpoint('qwen3_vl')}"
    code, output, _ = call(whole, "--json", "--accelerator", "l4", "--mfu", "0.5", "train.stage1.steps=1000")
    found = json.loads(output)
    assert code == 0
    assert [step["name"] for step in found["steps"]] == ["prepare", "pretrain", "stage1", "stage2", "model", "report"]
    stage = found["stages"]["stage1"]
    assert sum(stage["memory_bytes"].values()) == pytest.approx(stage["total_bytes"], abs=10)
    assert stage["activation_bytes"]["checkpointed"] < stage["activation_bytes"]["kept"]
    assert stage["hours"] == pytest.approx(1000 * stage["operations_per_step"] / (0.5 * 121e12) / 3600)
    blocks, rows, cols = 8, 3, 3  # the checkpoint allows 4 * 48 * 48 pixels of 16 frames; a token is 8 pixels wide
    assert stage["visual_tokens_per_step"] == 4 * found["data"]["visual_tokens_per_clip"] == 4 * blocks * rows * cols
    assert found["accelerator"]["fits"] is True
    assert found["advice"] == ""
    assert found["data"]["prepared_bytes"] == 3 * 16 * 32 * 32 * 3


def test_a_hub_id_that_is_not_here_needs_config_json_only(call):
    code, output, error = call("model.backbone.path=acme/absent-7b", "model.backbone.revision=v2")
    assert (code, output) == (2, "")
    assert "hf download acme/absent-7b config.json --revision v2" in error


def test_a_folder_without_config_json_is_no_checkpoint(call, config_only: Path):
    (config_only / "config.json").unlink()
    code, _, error = call()
    assert code == 2
    assert "config.json" in error


def test_an_unknown_accelerator_is_explained(call):
    code, _, error = call("--accelerator", "h1000")
    assert code == 2
    assert "Did you mean 'h100'?" in error


def test_data_that_is_elsewhere_is_planned_with_numbers(call, tmp_path: Path):
    absent = f"data.train=[{{name: messages, files: {tmp_path}/absent.jsonl}}]"
    code, _, error = call(absent)
    assert code == 2
    assert "--clips N --questions N" in error
    code, output, _ = call(absent, "--clips", "12345", "--questions", "23456")
    assert code == 0
    for words in ("12,345", "23,456", "as given", "Not read", "No training question"):
        assert words in output
    assert "pretrain" not in output  # addresses follow from the data


def test_numbers_that_are_not_needed_or_not_whole_are_said(call):
    assert "not used" in call("--clips", "5", "--questions", "9")[1]
    code, _, error = call("--clips", "5")
    assert code == 2
    assert "go together" in error


def test_a_recipe_that_trains_nothing_has_no_stages(call):
    code, output, _ = call("--json", "train.stage1.steps=0", "train.stage2.steps=0")
    assert code == 0
    assert json.loads(output)["stages"] == {}
    assert call("train.stage1.steps=0", "train.stage2.steps=0")[0] == 0


def test_a_worker_may_have_a_part_of_an_accelerator(call):
    assert "DOES NOT FIT" not in call("--accelerator", "l4", "train.resources.gpu=1")[1]
    output = call("--accelerator", "l4", "train.resources.gpu=0.02")[1]
    assert "DOES NOT FIT" in output
    assert "of 0.48 GB" in output


# ---------------------------------------------------------------------------------------------- what does not fit


def test_more_workers_make_it_smaller_where_states_are_sharded(values: dict):
    def total(**train: Any) -> float:
        changed = {**values, "train": {**values["train"], **train}}
        return estimate(Recipe.from_dict(changed)).largest.memory["optimizer states"]

    alone, two, zero = total(), total(workers=2), total(workers=2, strategy={"name": "fsdp"})
    assert alone == two == 2 * zero


def test_copies_for_bf16(values: dict):
    """Autocast copies fp32 weights once; FSDP that gathers layers as bf16 leaves it nothing to copy in them."""

    def found(path: str = "float32", **train: Any) -> tuple[float, float]:
        backbone = {**values["model"]["backbone"], "dtype": path}
        changed = {
            **values,
            "model": {"backbone": backbone},
            "train": {**values["train"], "precision": "bf16", **train},
        }
        cost = estimate(Recipe.from_dict(changed)).largest.memory
        return cost["bf16 copies"], cost["weights"]

    copies, weights = found()
    assert 0.4 * weights < copies < 0.5 * weights  # of all matrices
    assert found(precision="fp32")[0] == 0
    in_fsdp, _ = found(workers=2, strategy={"name": "fsdp", "param_dtype": "bf16"})
    assert 0 < in_fsdp < copies == found(workers=2, strategy="fsdp")[0]
    assert found("bfloat16")[0] < copies
    lora, _ = found(tuning="lora")
    assert found(tuning="lora", gradient_checkpointing=True)[0] < copies < lora  # kept each time, unless computed again


def test_an_update_needs_room_where_the_passes_before_it_leave_little():
    adamw, muon = (Stage2(optimizer=name) for name in ("adamw", "muon"))
    assert update_bytes(adamw, 100.0, 0.5) == 50
    assert update_bytes(muon, 100.0, 0.5) == 100


def test_what_a_tuning_leaves_to_train(values: dict):
    def parts(**train: Any) -> dict:
        return estimate(Recipe.from_dict({**values, "train": {**values["train"], **train}})).parts

    full, lora, four_bits = parts(), parts(tuning="lora"), parts(tuning="qlora")
    assert whole(full).trained == whole(full).total
    assert whole(lora).trained == lora["adapters"].total + lora["clue parts"].total
    assert whole(lora).total == whole(full).total + lora["adapters"].total
    assert four_bits["language model"].weight_bytes < 0.15 * lora["language model"].weight_bytes
    assert four_bits["vision tower"] == lora["vision tower"]


def test_advice_names_the_largest_part_and_settings_that_help(values: dict):
    values["train"]["workers"] = 2
    recipe = Recipe.from_dict(values)
    found = estimate(recipe)
    text = fit.advice(recipe, found, NOTHING)
    largest = max(found.largest.memory, key=found.largest.memory.get)
    assert f"Most of it: {largest}" in text
    remedies = fit.remedies(recipe, found, NOTHING.memory_bytes)
    settings = [remedy.settings for remedy in remedies]
    assert settings[0] == "train.gradient_checkpointing=true"
    assert "train.stage1.accumulate=2" in settings[1]
    assert "train.tuning=lora model.backbone.dtype=bfloat16" in settings[-1]
    assert all(one in text for one in settings)


def test_a_remedy_gives_what_it_promises(values: dict, tmp_path: Path):
    """Its settings on the command line lead to its figure."""
    import shlex

    from cluenet.recipe import load

    values["train"]["workers"] = 2
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(values))
    found = estimate(load(path))
    for remedy in fit.remedies(load(path), found, 0):
        changed = estimate(load(path, shlex.split(remedy.settings)))
        assert changed.largest.total_bytes == pytest.approx(remedy.total_bytes)
        assert remedy.total_bytes < found.largest.total_bytes


def test_settings_that_do_not_go_together_are_not_proposed(values: dict):
    """Muon orthogonalises whole matrices, which ZeRO does not have."""
    values["train"] = {name: {"steps": 10, "clips_per_batch": 4, "optimizer": "muon"} for name in ("stage1", "stage2")}
    recipe = Recipe.from_dict({**values, "train": {**values["train"], "workers": 2}})
    settings = [remedy.settings for remedy in fit.remedies(recipe, estimate(recipe), 0)]
    assert settings
    assert not any("deepspeed" in one for one in settings)


@pytest.fixture
def run(values: dict, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """A run whose cluster has GPUs of a kind that holds next to nothing."""
    monkeypatch.setattr(
        Run, "_connect", lambda self, training=False: setattr(self, "_resources", {"accelerator_type:S": 1})
    )
    monkeypatch.setattr("cluenet.estimate.accelerators.ACCELERATORS", {"s": Accelerator("s", 0.5, 1, 1, "S")})
    monkeypatch.setattr(
        Run, "prepared", property(lambda self: pytest.fail("it is checked before anything is prepared"))
    )

    def make(**train: Any) -> Run:
        model = {"backbone": {"name": "hf_vlm", "path": str(checkpoint("qwen3_vl"))}}
        train = {**values["train"], "resources": {"gpu": 1}, **train}
        recipe = Recipe.from_dict({**values, "model": model, "train": train})
        return Run(recipe, say=lambda line: None)

    return make


def test_a_run_on_gpus_refuses_what_does_not_fit_before_anything_starts(run):
    with pytest.raises(
        RecipeError, match=r"train: stage. needs about 1\.\d GB .* s has 0 GB.*(.|\n)*allow_oversize=true"
    ):
        _ = run().checkpoint


@pytest.mark.parametrize("train", [{"allow_oversize": True}, {"resources": {"gpu": 0}}])
def test_a_run_goes_on_where_it_is_told_to_or_uses_no_gpu(run, train: dict):
    run(**train)._require_memory()


def test_unknown_gpus_and_backbones_are_not_checked_and_that_is_said(run, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    one = run()
    one._say = said.append
    monkeypatch.setattr("cluenet.estimate.estimate.estimate", _unknown)
    one._require_memory()
    monkeypatch.setattr("cluenet.estimate.accelerators.ACCELERATORS", {})
    one._require_memory()
    assert [line.partition(":")[0] for line in said] == ["memory is not checked"] * 2


def _unknown(recipe: Recipe) -> None:
    raise CheckpointError("no size")


# ------------------------------------------------------------------------------------------------ published sizes


@pytest.mark.slow
def test_qwen2_5_vl_7b_has_its_published_size(tmp_path: Path):
    """8.29 billion parameters: https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct, values of its config.json."""
    text = {
        "model_type": "qwen2_5_vl_text", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    config = {"model_type": "qwen2_5_vl", "tie_word_embeddings": False, "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    notes: list[str] = []
    vlm = unloaded_model(tmp_path, texts=[], note=notes.append)
    assert sum(p.numel() for p in vlm.hf.parameters()) == 8_292_166_656
    assert {p.device.type for p in vlm.hf.parameters()} == {"meta"}
    assert len(notes) == 2


# --------------------------------------------------------------------------------- what others' libraries say of themselves


def test_ray_calls_them_so():
    """A type that Ray does not know would never be found. Consumer cards have their product's name there."""
    from ray.util.accelerators import accelerators

    known = {value for value in vars(accelerators).values() if isinstance(value, str)}
    assert {one.ray_type for one in ACCELERATORS.values() if "GeForce" not in (one.ray_type or "")} <= known


@pytest.mark.parametrize(("name", "theirs"), {"a100-80gb": "A100", "h100": "H100", "mi300x": "MI300X"}.items())
def test_torch_has_the_same_figures(name: str, theirs: str):
    """From the data sheets, with sparsity or without as it says. Its row for L4 has H100's bandwidth, so it is no witness."""
    from torch._inductor.analysis.device_info import lookup_device_info

    ours = ACCELERATORS[name]
    known = lookup_device_info(f"{'AMD' if name == 'mi300x' else 'NVIDIA'} {theirs}")
    assert known is not None
    assert ours.bf16_tflops == pytest.approx(known.tops[torch.bfloat16] / known.tops_sparsity_factor, rel=0.002)
    assert (ours.memory_gb, ours.bandwidth_gb_per_second) == (known.dram_gb, known.dram_bw_gbs)


def test_the_defaults_are_those_of_deepspeed():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = {field.alias or name: field.default for name, field in DeepSpeedZeroConfig.model_fields.items()}
    assert {name: fields[name] for name in ZERO_DEFAULTS} == ZERO_DEFAULTS
