"""Headers of the recipes for large models say what `cluenet plan` says of them, from published config.json values alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cluenet.estimate import fit
from cluenet.estimate.accelerators import accelerator
from cluenet.estimate.estimate import estimate
from cluenet.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes"
GB = 10**9
QWEN2_7B = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "tie_word_embeddings": False,
}  # fmt: skip
CONFIGS = {
    "nextqa_qwen2_5_vl_7b": {
        "model_type": "qwen2_5_vl",
        "text_config": {**QWEN2_7B, "model_type": "qwen2_5_vl_text", "vocab_size": 152064,
                        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}},
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
                          "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
    "nextqa_internvl3_8b": {
        "model_type": "internvl", "image_token_id": 151667,
        "text_config": {**QWEN2_7B, "model_type": "qwen2", "vocab_size": 151674},
        "vision_config": {"model_type": "internvl_vision", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                          "intermediate_size": 4096, "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True},
    },
    "star_qwen3_vl_8b": {
        "model_type": "qwen3_vl",
        "text_config": {"model_type": "qwen3_vl_text", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
                        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
                        "rope_parameters": {"rope_type": "default", "mrope_section": [24, 20, 20], "rope_theta": 5e6}},
        "vision_config": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
                          "patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24]},
    },
    "quick_smolvlm2": {
        "model_type": "smolvlm", "scale_factor": 4, "image_token_id": 49190,
        "text_config": {"model_type": "llama", "hidden_size": 960, "num_hidden_layers": 32, "num_attention_heads": 15,
                        "num_key_value_heads": 5, "head_dim": 64, "intermediate_size": 2560, "vocab_size": 49280},
        "vision_config": {"model_type": "smolvlm_vision", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                          "intermediate_size": 3072, "image_size": 512, "patch_size": 16},
    },
}  # fmt: skip
"""Of the released checkpoints, where they are not defaults of the classes."""


def header(name: str) -> str:
    text = (RECIPES / f"{name}.yaml").read_text().split("version:")[0]
    return " ".join(line.removeprefix("#").strip() for line in text.splitlines())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_header_says_what_the_plan_says_and_it_fits(name: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": False, **CONFIGS[name]}))
    places = [f"model.backbone.path={tmp_path}", f"store={tmp_path}/store"]
    splits = ("train", "validation", "test") if name.startswith("quick") else ()
    recipe = load(RECIPES / f"{name}.yaml", [*places, *(f"data.{split}.0.folder={tmp_path}" for split in splits)])
    says = header(name)
    given = {word: int(number) for word, number in re.findall(r"--(clips|questions) (\d+)", says)}
    found, device = estimate(recipe, **given), accelerator(re.search(r"--accelerator ([\w-]+)", says)[1])
    count, gigabytes = re.search(r"Needs: (\d+) GPUs? of (\d+) GB", says).groups()
    assert (int(count), int(gigabytes) * GB) == (recipe.train.workers, device.memory_bytes)
    assert fit.fits(found, device)
    assert f"says {found.largest.total_bytes / GB:.1f} GB" in says
    if found.bytes.prepared > GB:
        assert f"{found.bytes.prepared / GB:.0f} GB of frames" in says
    if recipe.data.features:
        assert f"{found.bytes.features / GB:.0f} GB of features" in says
    hours = [stage.hours(device, workers=found.workers, mfu=0.35) for stage in found.stages]
    assert "by that plan {:.2g} + {:.2g} hours".format(*hours) in says


def test_kept_features_save_the_towers_pass_and_nothing_else(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": False, **CONFIGS["nextqa_qwen2_5_vl_7b"]}))
    places = [f"model.backbone.path={tmp_path}", f"store={tmp_path}/store"]
    live, kept = (
        estimate(load(RECIPES / "nextqa_qwen2_5_vl_7b.yaml", [*places, f"data.features={on}"]), clips=10, questions=60)
        for on in ("off", "on")
    )
    patches = 16 * 8 * 32 * 32  # clips of a step, blocks, rows, columns
    forward = 2 * live.parts["vision tower"].total * patches  # of weights alone, Kaplan et al.
    for one, other in zip(live.stages, kept.stages):
        assert forward < one.operations - other.operations < 1.2 * forward
        assert other.memory == one.memory
